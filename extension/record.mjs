// Notes which sources the bundle was built from, so that a test can tell when it is out of step without building it.
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';

const roots = ['src', 'style', 'schema', '../nbray/cards/static'];
const hash = createHash('sha256');
for (const root of roots) {
  for (const name of readdirSync(root).sort()) hash.update(`${root}/${name}\n`).update(readFileSync(`${root}/${name}`));
}
hash.update(readFileSync('package.json'));
writeFileSync('../nbray/labextension/sources.sha256', `${hash.digest('hex')}\n`);
