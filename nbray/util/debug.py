"""`log_once`: say a thing one time per process, however often its place is passed."""

from __future__ import annotations

import threading
import time

PERIOD_S = 60.0

_lock = threading.Lock()
_said: set[str] = set()
_settings = {"disabled": False, "periodic": False}
_last = [time.monotonic()]


def log_once(key: str) -> bool:
    """True the first time that it is called with `key`; after `enable_periodic_logging` once a minute, after
    `disable_log_once_globally` never."""
    with _lock:
        if _settings["disabled"]:
            return False
        if _settings["periodic"] and time.monotonic() - _last[0] > PERIOD_S:
            _said.clear()
            _last[0] = time.monotonic()
        if key in _said:
            return False
        _said.add(key)
        return True


def disable_log_once_globally() -> None:
    """`log_once` is False from now on."""
    _settings["disabled"] = True


def enable_periodic_logging() -> None:
    """`log_once` is True again, once a minute for each key."""
    _settings.update(disabled=False, periodic=True)


def reset_log_once(key: str | None = None) -> None:
    """Forget that `key` was said, or all of them."""
    with _lock:
        if key is None:
            _said.clear()
        else:
            _said.discard(key)
