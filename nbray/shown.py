"""How one of nbray's own things shows itself in a notebook: a title, its state, what is known of it. As text and as static HTML,
which say the same; everything in the HTML is escaped, and there is no script in it.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Bundle = dict[str, str]  #: mime type -> text
MUTED = "color:var(--jp-ui-font-color2,#666)"
#: Never colour alone: each mood has its sign.
MOODS = {
    "good": ("✓", "var(--jp-success-color1,#2e7d32)"),
    "bad": ("✗", "var(--jp-error-color1,#c62828)"),
    "live": ("▸", "var(--jp-brand-color1,#1565c0)"),
    "over": ("■", "var(--jp-warn-color1,#b26a00)"),
    "unknown": ("?", "var(--jp-ui-font-color2,#666)"),
}
MOST_CHARACTERS = 200  #: of one fact


MOST_METHODS = 8


class State(NamedTuple):
    """In words, with what it means for whoever looks: a key of MOODS."""

    words: str
    mood: str = "live"


ENDED = State("belongs to a session that has ended", "over")
TASK_STATES = {"WAITING": "waits for its arguments", "QUEUED": "queued", "PUSHED": "sent to a worker"}
ACTOR_STATES = {
    "PENDING": State("is being placed"),
    "ALIVE": State("alive", "good"),
    "RESTARTING": State("is being restarted"),
    "DEAD": State("dead", "bad"),
}
GROUP_STATES = {
    "PENDING": State("is being placed"),
    "CREATED": State("placed", "good"),
    "RESCHEDULING": State("lost a node, and is being placed anew"),
    "REMOVED": State("removed", "over"),
}


def bundle(title: str, state: State | None, facts: Iterable[str], more: str = "", heading: str = "") -> Bundle:
    """Both forms. `facts` are phrases, of which the empty ones are left out; `more` is a longer text, under `heading`."""
    told = [_cut(fact) for fact in facts if fact]
    sign, colour = MOODS[state.mood] if state is not None else ("", "")
    said = [f"{sign} {_cut(state.words)}"] if state is not None else []
    text = " · ".join([title, *said, *told])
    mark = f' <span style="color:{colour}">{html.escape(said[0])}</span>' if said else ""
    line = f'<div style="font-size:90%;{MUTED}">{html.escape(" · ".join(told))}</div>' if told else ""
    rest = (
        f'<details><summary style="cursor:pointer;font-size:90%;{MUTED}">{html.escape(heading)}</summary>'
        f'<pre style="white-space:pre-wrap">{html.escape(more)}</pre></details>'
        if more
        else ""
    )
    label = html.escape(title.partition("(")[0])
    return {
        "text/plain": f"{text}\n{more}" if more else text,
        "text/html": f'<div role="group" aria-label="{label}"><code>{html.escape(title)}</code>{mark}{line}{rest}</div>',
    }


def of_object(title: str, known: Mapping[str, Any] | None) -> Bundle:
    """A reference. `known`: what engines/port.py:Looks.object says; None: its session has ended."""
    if known is None:
        return bundle(title, ENDED, ())
    state = {"READY": State("ready", "good"), "FAILED": State(f"failed: {known.get('error')}", "bad")}.get(known["state"])
    if state is None:
        waits = TASK_STATES.get(known.get("task_state", ""))
        state = State(waits) if waits else State("not ready") if known["mine"] else State("its owner knows its state", "unknown")
    size = known.get("size")
    return bundle(
        title,
        state,
        (
            str(known.get("type") or ""),
            bytes_text(size) if size is not None else "",
            _where([known["node"], *known["copies"]] if known.get("node") else known["copies"], known["here"]),
            f"from {known['name']}" if known.get("name") else "",
            f"made at {known['call_site']}" if known.get("call_site") else "",
            f"lent to {_count(known['borrowers'], 'process')}" if known.get("borrowers") else "",
        ),
    )


def of_actor(title: str, known: Mapping[str, Any] | None, methods: Sequence[str]) -> Bundle:
    """A handle. `known`: what Looks.actor says; None: its session has ended."""
    if known is None:
        return bundle(title, ENDED, ())
    state = ACTOR_STATES.get(known["state"], State("its state is not known here", "unknown"))
    shown = ", ".join(methods[:MOST_METHODS]) + (f" and {len(methods) - MOST_METHODS} more" if len(methods) > MOST_METHODS else "")
    return bundle(
        title,
        state,
        (
            known.get("why", ""),
            _where([known["node"]] if known.get("node") else [], known.get("here", "")),
            f"restarted {_count(known['restarts'], 'time')}" if known.get("restarts") else "",
            f"{_count(known['running'], 'call')} of this process running" if known.get("running") else "",
            f"{known['waiting']:,} waiting" if known.get("waiting") else "",
            f"made at {known['call_site']}" if known.get("call_site") else "",
            f"methods: {shown}" if shown else "",
        ),
    )


def of_stream(title: str, known: Mapping[str, Any] | None) -> Bundle:
    """A generator. `known`: what Looks.stream says; None: its session has ended."""
    if known is None:
        return bundle(title, ENDED, ())
    state = State("running") if not known["ended"] else State("failed", "bad") if known["failed"] else State("ended", "good")
    if not known["ended"] and known.get("task_state") in TASK_STATES and not known["came"]:
        state = State(TASK_STATES[known["task_state"]])
    came = f"{_count(known['came'], 'item')} so far, {known['taken']:,} taken" if known["came"] is not None else ""
    return bundle(title, state, (came, f"made at {known['call_site']}" if known["call_site"] else ""))


def of_group(title: str, known: Mapping[str, Any] | None, bundles: Sequence[Mapping[str, float]] | None) -> Bundle:
    """A placement group. `known`: what Looks.group says; None: its session has ended. `bundles`: where they are known here."""
    if known is None:
        return bundle(title, ENDED, ())
    state = GROUP_STATES.get(known["state"], State("its state is not known here", "unknown"))
    each = Counter(", ".join(f"{name} {amount:g}" for name, amount in one.items()) for one in bundles or ())
    told = "; ".join(amounts if n == 1 else f"{n:,} of {amounts}" for amounts, n in each.items())
    return bundle(title, state, (known["why"], _count(len(bundles), "bundle") if bundles else "", told))


def _where(nodes: Sequence[str], here: str) -> str:
    """`on this node and node b71e`."""
    names = ["this node" if node == here else f"node {node[:4]}" for node in dict.fromkeys(nodes)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"on {' and '.join(names[:3])}{more}" if names else ""


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def bytes_text(size: float) -> str:
    """A size as people write it: `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
