"""`ray.experimental.multiprocessing`: where `nbray.util.multiprocessing` was in Ray before 1.0."""

import warnings

from nbray.util.multiprocessing import Pool, TimeoutError  # noqa: A004 -- multiprocessing's own name

warnings.warn(
    "nbray.experimental.multiprocessing is nbray.util.multiprocessing today; change the import", DeprecationWarning, stacklevel=2
)

__all__ = ["Pool", "TimeoutError"]
