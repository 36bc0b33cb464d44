"""`ray.experimental.queue`: where `nbray.util.queue` was in Ray before 1.0."""

import warnings

from nbray.util.queue import Empty, Full, Queue

warnings.warn("nbray.experimental.queue is nbray.util.queue today; change the import", DeprecationWarning, stacklevel=2)

__all__ = ["Empty", "Full", "Queue"]
