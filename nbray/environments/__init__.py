"""Making runtime environments: packing directories where the driver is, and unpacking and installing them on every node."""
