"""How a script's terminal shows what tasks print and what a person should know; notebooks have their own (notebook/output.py)."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from nbray.driver.bars import Bars
from nbray.driver.folding import Fold, Rules
from nbray.engines.port import OutputEvent
from nbray.progress import Progress

NOTICE = " (nbray folds lines that several processes print alike; NBRAY_DEDUP_LOGS=0 shows them all)"


def rules_from_environment() -> Rules:
    """NBRAY_DEDUP_LOGS=0, _AGG_WINDOW_S, _ALLOW_REGEX and _SKIP_REGEX; or the same with RAY_. Raises ValueError."""
    allow, skip = _environment("DEDUP_LOGS_ALLOW_REGEX"), _environment("DEDUP_LOGS_SKIP_REGEX")
    return Rules(
        window_s=float(_environment("DEDUP_LOGS_AGG_WINDOW_S") or Rules().window_s),
        folds=_environment("DEDUP_LOGS") not in ("0", "false", "False"),
        shown=re.compile(allow) if allow else None,
        left_out=re.compile(skip) if skip else None,
    )


def _environment(name: str) -> str | None:
    return os.environ.get(f"NBRAY_{name}", os.environ.get(f"RAY_{name}"))


class Terminal:
    """`(name pid=N) text` on the stream it was printed to; with the node where that is not `here()`, the driver's own."""

    def __init__(self, shows_output: bool, here: Callable[[], bytes] = lambda: b"", rules: Rules | None = None) -> None:
        self._shows_output = shows_output
        self._here = here
        rules = rules if rules is not None else rules_from_environment()
        self._folds = {"stdout": Fold(rules, NOTICE), "stderr": Fold(rules, NOTICE)}
        self._bars = Bars(lambda: sys.stderr)
        self._lock = threading.RLock()  # the __del__ of a progress bar, which shows its end, may run while this thread holds it
        self._timer: threading.Timer | None = None

    def output(self, event: OutputEvent) -> None:
        if not self._shows_output:
            return
        if "nbray_progress" in event.transient:
            with self._lock:
                self._bars.take(msgspec.convert(event.transient["nbray_progress"], Progress), time.monotonic())
            return
        text = event.text if event.mime is None else str(event.mime.get("text/plain", "")) + "\n"
        here = self._here()
        where = f", node={event.node.hex()[:4]}" if here and event.node and event.node != here else ""
        lead = f"({event.name} pid={event.pid}{where}) "
        stream = "stderr" if event.stream == "stderr" else "stdout"
        with self._lock:
            lines = self._folds[stream].take((event.node, event.pid), lead, text.splitlines(), time.monotonic())
            if event.dropped:
                lines.append(f"{lead}... {event.dropped} more lines; all are in the worker's log file")
            self._show(stream, lines)
            self._arm()

    def flush(self) -> None:
        """Show what is held back: nothing more comes."""
        self._let_go(lambda fold: fold.flush(time.monotonic()))
        with self._lock:
            self._bars.finish()

    def _let_go(self, of: Callable[[Fold], list[str]]) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for stream, fold in self._folds.items():
                self._show(stream, of(fold))
            self._arm()

    def _arm(self) -> None:
        """What is held back is shown when its window ends, also when nobody prints again."""
        due = min((d for fold in self._folds.values() if (d := fold.next_deadline()) is not None), default=None)
        if due is not None and self._timer is None:
            self._timer = threading.Timer(max(0.0, due - time.monotonic()), self._let_go, [lambda fold: fold.due(time.monotonic())])
            self._timer.daemon = True
            self._timer.name = "nbray-fold"
            self._timer.start()

    def _show(self, stream: str, lines: list[str]) -> None:
        if lines:
            with self._bars.aside():
                print("\n".join(lines), file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)

    def notice(self, cell: str, kind: str, text: str) -> None:
        del cell
        if kind == "unhandled":
            if any(os.environ.get(f"{prefix}_IGNORE_UNHANDLED_ERRORS") == "1" for prefix in ("NBRAY", "RAY")):
                return
            text = f"Unhandled error (suppress with 'NBRAY_IGNORE_UNHANDLED_ERRORS=1'): {text}"
        with self._lock, self._bars.aside():
            print(f"nbray: {text}", file=sys.stderr, flush=True)
