"""Where time or memory went, as a tree of calls made of folded stacks; drawn as a flame graph without script, and as text.

    Flame.add(stack, value) --to_data--> lists that travel and are kept --of_data--> merged with others --svg, lines--> shown

The root is at the top and callees hang below it, as wide as what they and their callees took. A frame is a text as a person
reads it: `fit (model.py)`, or `In[7] line 3` for a line of the cell.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from nbray.cards import words

MOST_NODES = 2000  #: of one tree that travels
SAVED_NODES = 600  #: in the JSON of a static card: 30 kB
TOP = 8  #: functions in the text form
WIDTH, ROW = 960, 17
CHARACTER = 6.3  #: width of one, at the size that labels have
LEAST_WIDTH = 1.2  #: narrower is not drawn
DEEPEST = 60  #: rows drawn
OTHERS = "(others)"
#: Light enough for black letters on each, in light and dark pages alike. One per file, by its name.
FILLS = ("#f2b880", "#e9d585", "#b8d8a0", "#9fd0c8", "#a9c7e8", "#c9b8e4", "#e6b3cc", "#d8c4ae")
INK = "#1f1f1f"
MUTED = "color:var(--jp-ui-font-color2,#767676)"


class Node:
    """One frame under the frames above it. `own` is what it took itself."""

    __slots__ = ("below", "label", "own")

    def __init__(self, label: str) -> None:
        self.label = label
        self.own = 0
        self.below: dict[str, Node] = {}

    @property
    def total(self) -> int:
        """With all that it called. Trees are shallow enough for recursion: `add` cuts stacks."""
        return self.own + sum(node.total for node in self.below.values())


class Flame:
    """One profile. `kind` is "cpu" (values are samples, `rate` of them a second) or "mem" (bytes at the peak)."""

    def __init__(self, kind: str, rate: int = 0) -> None:
        self.kind, self.rate = kind, rate
        self.tasks = 1  #: that it was made of
        self.root = Node("")

    # -- facts in

    def add(self, stack: Sequence[str], value: int) -> None:
        """`value` was found under `stack`, the outermost frame first."""
        node = self.root
        for label in stack[:400]:
            found = node.below.get(label)
            if found is None:
                found = node.below[label] = Node(label)
            node = found
        node.own += value

    def merge(self, other: Flame) -> None:
        """Take in another task's. Times add up; of memory the task that needed most is kept, as peaks are not at one time."""
        tasks = self.tasks + other.tasks
        if self.kind == "cpu":
            _pour(other.root, self.root)
        elif other.total > self.total:
            self.root = other.root
        self.tasks = tasks

    def pruned(self, most: int) -> Flame:
        """With about `most` nodes: the smallest are taken into those that called them, the outermost into one, so that sums stay
        what they are."""
        sizes = sorted((node.total for node, _ in self.nodes()), reverse=True)
        if len(sizes) <= most:
            return self
        small = self.copy()
        _cut(small.root, sizes[most])
        if small.root.own:
            rest = small.root.below.setdefault(OTHERS, Node(OTHERS))
            rest.own, small.root.own = rest.own + small.root.own, 0
        return small

    def copy(self) -> Flame:
        other = Flame(self.kind, self.rate)
        other.tasks = self.tasks
        _pour(self.root, other.root)
        return other

    # -- what follows from them

    @property
    def total(self) -> int:
        return self.root.total

    def nodes(self) -> Iterator[tuple[Node, int]]:
        """Every node with its depth, callers before callees."""
        open_ = [(node, 0) for node in reversed(self.root.below.values())]
        while open_:
            node, depth = open_.pop()
            yield node, depth
            open_ += [(each, depth + 1) for each in reversed(node.below.values())]

    def top(self) -> list[tuple[str, int, int]]:
        """(frame, own, with callees), at most TOP with the largest own. A frame that calls itself counts once."""
        own: dict[str, int] = {}
        all_: dict[str, int] = {}
        path: list[str] = []
        for node, depth in self.nodes():
            del path[depth:]
            own[node.label] = own.get(node.label, 0) + node.own
            if node.label not in path:
                all_[node.label] = all_.get(node.label, 0) + node.total
            path.append(node.label)
        least = max(1, self.total / 1000)
        found = [(label, value, all_[label]) for label, value in own.items() if value >= least]
        return sorted(found, key=lambda each: (-each[1], -each[2]))[:TOP]

    def folded(self) -> list[str]:
        """`outer;inner 12` per stack, as other flame graph programs read it."""
        found: list[str] = []
        path: list[str] = []
        for node, depth in self.nodes():
            path[depth:] = [node.label.replace(";", ",")]
            if node.own:
                found.append(f"{';'.join(path)} {node.own}")
        return found

    # -- as data

    def to_data(self, most: int = MOST_NODES) -> dict[str, Any]:
        """JSON: nodes as [depth, label, own], callers before callees."""
        labels: dict[str, int] = {}
        nodes = [[depth, labels.setdefault(node.label, len(labels)), node.own] for node, depth in self.pruned(most).nodes()]
        return {"kind": self.kind, "rate": self.rate, "tasks": self.tasks, "labels": list(labels), "nodes": nodes}

    @classmethod
    def of_data(cls, data: dict[str, Any]) -> Flame:
        flame = cls(str(data["kind"]), int(data["rate"]))
        flame.tasks = int(data["tasks"])
        path = [flame.root]
        for depth, label, own in data["nodes"]:
            del path[depth + 1 :]
            text = str(data["labels"][label])
            node = path[-1].below[text] = Node(text)
            node.own = int(own)
            path.append(node)
        return flame

    # -- in words

    def amount(self, value: int) -> str:
        """A value of this profile as a person writes it."""
        return words.bytes_text(value) if self.kind == "mem" else words.seconds_text(value / self.rate)

    def heading(self) -> str:
        """What was measured, and how much of it there is."""
        if self.kind == "mem":
            whose = "" if self.tasks == 1 else f" of the task that needed most, of {words.count_text(self.tasks, 'task')}"
            return f"memory at its peak{whose}: {self.amount(self.total)}" if self.total else "memory: nothing worth counting"
        where = words.count_text(self.tasks, "task")
        if not self.total:
            return f"CPU: no sample in {where} ({self.rate} a second are taken): the code was too short, or it waited"
        return f"CPU time: {self.amount(self.total)} in {where}, {self.rate} samples a second"

    def lines(self) -> list[str]:
        """The heading, and the frames that took most themselves."""
        total = self.total
        rows = [(f"{own / total:6.1%}", self.amount(own), frame, all_) for frame, own, all_ in self.top()]
        width = max((len(amount) for _, amount, _, _ in rows), default=0)
        told = []
        for share, amount, frame, all_ in rows:
            called = f"  ({all_ / total:.0%} with what it calls)" if f"{all_ / total:6.1%}" != share else ""
            told.append(f"  {share}  {amount:>{width}}  {frame}{called}")
        return [self.heading(), *told]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    # -- as a picture

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """The heading, the flame graph, and the frames that took most themselves as a table."""
        style = 'style="text-align:left;white-space:nowrap;padding:1px 12px 1px 0"'
        left = 'style="text-align:left"'
        columns = ("frame", "itself", "", "with what it calls", "")
        head = "".join(f'<th scope="col" {style}>{name}</th>' for name in columns)
        total = self.total
        body = "".join(
            f"<tr><td {left}><code>{html.escape(frame)}</code></td><td {style}>{self.amount(own)}</td>"
            f"<td {style}>{own / total:.1%}</td><td {style}>{self.amount(all_)}</td><td {style}>{all_ / total:.1%}</td></tr>"
            for frame, own, all_ in self.top()
        )
        table = f'<table style="font-size:85%"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>' if body else ""
        return f'<div style="{MUTED};font-size:85%;margin-top:6px">{html.escape(self.heading())}</div>{self.svg()}{table}'

    def svg(self) -> str:
        """The flame graph as inline SVG: no script, everything escaped, each frame with its text as a title."""
        total = self.total
        if not total:
            return ""
        parts, deepest, ends = [], 0, [0.0]  # ends[depth]: where the next node of that depth begins
        for node, depth in self.nodes():
            del ends[depth + 1 :]
            x, width = ends[depth], node.total / total * WIDTH
            ends[depth] = x + width
            ends.append(x)
            if depth < DEEPEST and width >= LEAST_WIDTH:
                deepest = max(deepest, depth)
                parts.append(self._frame(node, x, width, depth * ROW, total))
        height = (deepest + 1) * ROW
        label = html.escape(f"flame graph, {self.heading()}")
        return (
            f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}" '
            f'style="width:100%;max-width:{WIDTH}px;display:block;margin:4px 0" '
            f'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="10.5" fill="{INK}">{"".join(parts)}</svg>'
        )

    def _frame(self, node: Node, x: float, width: float, y: int, total: int) -> str:
        said = html.escape(f"{node.label}: {self.amount(node.total)}, {node.total / total:.1%}")
        text = html.escape(fitting(node.label, width))
        written = f'<text x="{x + 3:.1f}" y="{y + 12}">{text}</text>' if text else ""
        rect = f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.7):.1f}" height="{ROW - 1}" fill="{fill(node.label)}"/>'
        return f"<g><title>{said}</title>{rect}{written}</g>"


def fitting(label: str, width: float) -> str:
    """As much of `label` as fits; "" where two letters would not say anything."""
    room = int((width - 5) / CHARACTER)
    if room >= len(label):
        return label
    return f"{label[: room - 1]}…" if room >= 3 else ""


def fill(label: str) -> str:
    """The colour of a frame: that of its file. `flame.js` has the same."""
    place = (label[:-1].rpartition(" (")[2] if label.endswith(")") else label).partition(" line ")[0]
    number = 0
    for letter in place:
        number = (number * 31 + ord(letter)) & 0xFFFFFFFF
    return FILLS[number % len(FILLS)]


def _pour(source: Node, target: Node) -> None:
    target.own += source.own
    for label, node in source.below.items():
        _pour(node, target.below.setdefault(label, Node(label)))


def _cut(node: Node, least: int) -> None:
    """Take nodes of at most `least` into `node`, at every depth."""
    for label, each in list(node.below.items()):
        if each.total <= least:
            node.own += each.total
            del node.below[label]
        else:
            _cut(each, least)
