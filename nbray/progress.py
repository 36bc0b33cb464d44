"""What a progress bar looks like: one line of text, or HTML. Pure; who draws it where is in driver/bars.py and notebooks."""

from __future__ import annotations

import html

import msgspec

BLOCKS = " ▏▎▍▌▋▊▉█"
NARROWEST = 10  #: cells of the bar itself


class Progress(msgspec.Struct, frozen=True):
    """How far one loop is. `total` is None where nobody knows."""

    bar: str  #: which bar: an id
    desc: str = ""
    n: float = 0
    total: float | None = None
    unit: str = "it"
    elapsed_s: float = 0.0
    who: str = ""  #: the task and its pid; empty for the driver's own
    closed: bool = False

    @property
    def share(self) -> float | None:
        """0 to 1, None without a total."""
        return min(1.0, max(0.0, self.n / self.total)) if self.total else None


def line(progress: Progress, width: int = 100) -> str:
    """`(f pid=7) fit:  45%|████▌     | 45/100 [00:03<00:04, 12.1it/s]`, at most `width` characters."""
    lead = (f"({progress.who}) " if progress.who else "") + (f"{progress.desc}: " if progress.desc else "")
    share = progress.share
    if share is None:
        return f"{lead}{_amount(progress.n)}{progress.unit} [{_clock(progress.elapsed_s)}, {_rate(progress)}]"[:width]
    percent = f"{int(share * 100):3d}%|"
    rest = f"| {_counts(progress)}"
    room = width - len(lead) - len(percent) - len(rest)
    if room < NARROWEST:
        return f"{lead}{percent[:-1]}{rest[1:]}"[:width]
    return lead + percent + _blocks(share, room) + rest


def as_html(progress: Progress) -> str:
    """A labelled progress element, readable without colours and by screen readers."""
    label = html.escape(progress.desc or "progress", quote=True)
    title = f"{html.escape(progress.desc)} " if progress.desc else ""
    share = progress.share
    if share is None:
        said = f"{_amount(progress.n)}{progress.unit} [{_clock(progress.elapsed_s)}, {_rate(progress)}]"
        return f"<div>{title}{html.escape(said)}</div>"
    bar = f"<progress aria-label='{label}' value='{share:.4f}' max='1'></progress>"
    return f"<div>{title}{bar} {int(share * 100)}% {html.escape(_counts(progress))}</div>"


def _counts(progress: Progress) -> str:
    assert progress.total is not None
    share = progress.share
    left = "?" if not share else _clock(progress.elapsed_s * (1 - share) / share)
    return f"{_amount(progress.n)}/{_amount(progress.total)} [{_clock(progress.elapsed_s)}<{left}, {_rate(progress)}]"


def _blocks(share: float, cells: int) -> str:
    eighths = int(share * cells * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[part] if part else "")).ljust(cells)[:cells]


def _amount(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def _rate(progress: Progress) -> str:
    if not progress.elapsed_s or not progress.n:
        return f"?{progress.unit}/s"
    per_s = progress.n / progress.elapsed_s
    return f"{per_s:.1f}{progress.unit}/s" if per_s >= 1 else f"{1 / per_s:.1f}s/{progress.unit}"
