"""What the conformance tests are run against: nbray, or the Ray that is installed beside it when CONFORMANCE_SUBJECT=ray."""

import importlib.util
import os

import pytest

if os.environ.get("CONFORMANCE_SUBJECT") == "ray":
    import ray
else:
    import nbray as ray

#: For modules about jobs and the State API: Ray asks its dashboard about them, which a plain `pip install ray` has not.
needs_dashboard = pytest.mark.skipif(
    ray.__name__ == "ray" and importlib.util.find_spec("aiohttp_cors") is None, reason="Ray's dashboard is not installed: ray[default]"
)

__all__ = ["needs_dashboard", "ray"]
