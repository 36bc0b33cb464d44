"""A run in words: the line that stands for a card wherever there is only text, and that heads it everywhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbray.cards.flame import Flame

from nbray import shown

#: Never colour alone: each state has its sign.
SIGNS = {"done": "✓", "failed": "✗", "cancelled": "■", "timed out": "■", "running": "▸", "detached": "▸"}
#: Of a task that has not ended.
RUNNING, QUEUED, WAITS = "▸ running", "○ queued", "○ waits for its arguments"

MOST_CHARACTERS = 160  #: of a name that somebody gave
LEAST_LEFT_S = 0.1  #: a lower bound that is worth telling; card.js has it too
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def cut(text: object, most: int = MOST_CHARACTERS) -> str:
    """One line, short, and without characters that turn text around: what people name things may be anything."""
    said = _CONTROL.sub(" ", str(text))
    return said if len(said) <= most else f"{said[: most - 1]}…"


bytes_text = shown.bytes_text


def seconds_text(seconds: float) -> str:
    """A duration as people write it: `340 ms`, `2.1 s`, `3 min 20 s`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count_text(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def counts_text(counts: dict[str, int]) -> str:
    """`412 of 1,000 done, 2 running, 586 queued`; of a finished one `1,000 tasks`, with what went wrong."""
    total, done = counts["submitted"], counts["done"]
    rest = [f"{counts[what]:,} {what}" for what in ("failed", "cancelled", "running") if counts[what]]
    if done == total:
        return count_text(total, "task")
    return ", ".join([f"{done:,} of {count_text(total, 'task')} done", *rest, *queued_text(counts)])


def queued_text(counts: dict[str, int]) -> list[str]:
    """`586 queued (6 wait for inputs, 580 for a worker)`; nothing where nothing is queued."""
    queued, inputs = counts["queued"], counts.get("inputs", 0)
    if not inputs or not queued:
        return [f"{queued:,} queued"] if queued else []
    if inputs >= queued:
        return [f"{queued:,} queued (waiting for inputs)"]
    return [f"{queued:,} queued ({inputs:,} {'waits' if inputs == 1 else 'wait'} for inputs, {queued - inputs:,} for a worker)"]


def unended_text(names: Sequence[str]) -> str:
    """Why an estimate is no more than a lower bound; empty where it is one."""
    if not names:
        return ""
    others = f" and {count_text(len(names) - 1, 'other function')}" if len(names) > 1 else ""
    return f"nothing of {cut(names[0], 60)}{others} has ended yet"


def left_text(snapshot: dict[str, Any]) -> str:
    """`, about 12 s left`; empty where nothing can be said."""
    if snapshot["left_s"] is None:
        return ""
    left, note = seconds_text(snapshot["left_s"]), snapshot["left_note"]
    if note and snapshot["left_s"] < LEAST_LEFT_S:  # "at least 0 s" says nothing
        return f", {note}"
    return f", at least {left} left ({note})" if note else f", about {left} left"


def line(snapshot: dict[str, Any]) -> str:
    """One line: state, title, counts, time, verdict."""
    state = snapshot["state"]
    counts = counts_text(snapshot["counts"])
    if snapshot["items"]:
        counts = f"{count_text(snapshot['items'], 'item')} in {counts}"
    if snapshot["nested"]:
        counts += f" ({snapshot['nested']:,} submitted by tasks)"
    parts = [f"{SIGNS[state]} {state}", snapshot["title"], counts]
    parts.append(seconds_text(snapshot["elapsed_s"]) + left_text(snapshot))
    if snapshot["workers"]:
        parts.append(count_text(len(snapshot["workers"]), "worker"))
    if snapshot["sent"] or snapshot["received"]:
        parts.append(f"in {bytes_text(snapshot['sent'])}, out {bytes_text(snapshot['received'])}")
    return " · ".join(part for part in [*parts, snapshot["verdict"] or snapshot["notice"]] if part)


def text(snapshot: dict[str, Any], plan: dict[str, Any] | None = None, profile: Flame | None = None) -> str:
    """The whole card as text: the line, what each name and each error came to, where the time went, and what the plan says."""
    lines = [line(snapshot)]
    if len(snapshot["names"]) > 1:
        width = max(len(row["name"]) for row in snapshot["names"])
        for row in snapshot["names"]:
            mean = "" if row["mean_s"] is None else f", {seconds_text(row['mean_s'])} each"
            lines.append(f"  {row['name']:<{width}}  {counts_text(row)}{mean}")
    lines += [f"  {error['text']}" + (f"  ×{error['count']:,}" if error["count"] > 1 else "") for error in snapshot["errors"][:5]]
    if profile is not None:
        lines += [f"  {told}" for told in profile.lines()]
    if plan is not None:
        lines.append(f"  {plan['sentence']}")
    return "\n".join(lines)
