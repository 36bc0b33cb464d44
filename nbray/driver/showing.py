"""How a script's terminal shows what tasks print and what a person should know; notebooks have their own (notebook/output.py)."""

from __future__ import annotations

import os
import sys

from nbray.engines.port import OutputEvent


class Terminal:
    """`(name pid=N) text` on the stream it was printed to."""

    def __init__(self, shows_output: bool) -> None:
        self._shows_output = shows_output

    def output(self, event: OutputEvent) -> None:
        if not self._shows_output:
            return
        stream = sys.stderr if event.stream == "stderr" else sys.stdout
        lead = f"({event.name} pid={event.pid}) "
        text = event.text if event.mime is None else str(event.mime.get("text/plain", "")) + "\n"
        lines = [lead + line for line in text.splitlines()]
        if event.dropped:
            lines.append(f"{lead}... {event.dropped} more lines; all are in the worker's log file")
        if lines:
            print("\n".join(lines), file=stream, flush=True)

    def notice(self, cell: str, kind: str, text: str) -> None:
        del cell
        if kind == "unhandled":
            if any(os.environ.get(f"{prefix}_IGNORE_UNHANDLED_ERRORS") == "1" for prefix in ("NBRAY", "RAY")):
                return
            text = f"Unhandled error (suppress with 'NBRAY_IGNORE_UNHANDLED_ERRORS=1'): {text}"
        print(f"nbray: {text}", file=sys.stderr, flush=True)
