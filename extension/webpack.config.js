// Module ids that do not depend on where the checkout lies: two builds of the same sources are the same bytes.
module.exports = { optimization: { moduleIds: 'natural', chunkIds: 'natural' } };
