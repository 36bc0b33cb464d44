"""What the conformance tests are run against: nbray, or the Ray that is installed beside it when CONFORMANCE_SUBJECT=ray."""

import os

if os.environ.get("CONFORMANCE_SUBJECT") == "ray":
    import ray
else:
    import nbray as ray

__all__ = ["ray"]
