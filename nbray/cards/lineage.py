"""What was made from what, over a whole notebook: cells, tasks, variables, and the edges between them.

    cell In[2] --submitted--> load ×100 --needed by--> fit ×3 --holds--> variable `models` --read by--> cell In[3]

Tasks of one name in one cell are a group, which is what a person thinks of: "the 100 `simulate` of In[7]". A graph shows groups, or
single tasks where there are few of a name; above MOST_NODES it shows cells. Whoever looks opens and shuts what they like.

What has ended is here for good; what has not is given with each question (`Unfinished`): counts of all of it, and what some of it
needs.

Keys of nodes: `c:TAG` a cell, `g:TAG:TITLE:NAME` a group, `t:ID` a task, `m:...` the rest of an open group, `v:NAME` a variable.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from nbray.cards import words
from nbray.engines.cells import NAMES_PER_CELL, OTHERS
from nbray.engines.port import UnfinishedTask
from nbray.trace import TraceRecord

REMEMBERED = 200_000  #: tasks whose results can be found again as inputs of others
MOST_NODES = 200
SINGLE = 6  #: tasks of a group that are shown one by one without being asked for
MOST_OPEN = 200  #: tasks of one open group that are shown
STALE = "↻ stale"
ORDER = ("RUNNING", "QUEUED", "WAITING")  #: of tasks that have not ended, those first that are shown of many


class Group(NamedTuple):
    """Tasks of one name in one cell, or in one job of it."""

    tag: str  #: the cell
    title: str
    name: str

    @property
    def key(self) -> str:
        return f"g:{self.tag}:{self.title}:{self.name}"


class CellNote(NamedTuple):
    """One run of a cell. `number` counts runs; `reads` are variables, and the number of the run that had made each."""

    number: int
    tag: str
    title: str
    cell: str = ""  #: the front end's id of it
    heading: str = ""
    reads: dict[str, int] = {}
    stale: str = ""  #: why what it made is not what it would make now
    again: str = ""  #: the title of a later run of the same cell


class VariableNote(NamedTuple):
    """A variable of the notebook. `tasks`: those whose results it holds; `maker`: the run that bound it, 0 when not known; `got`:
    tasks whose results it was made of; `called`: functions whose tasks in its own cell had such results."""

    name: str
    maker: int = 0
    said: str = ""
    stale: str = ""
    tasks: Sequence[bytes] = ()
    got: Sequence[bytes] = ()
    called: Collection[str] = ()


class Notes(NamedTuple):
    """What the notebook knows besides its tasks."""

    cells: Sequence[CellNote] = ()
    variables: Sequence[VariableNote] = ()


class Unfinished(NamedTuple):
    """What has not ended. `counts`: (running, queued) of each group, exact; `tasks`: some of them, or all where they are few."""

    counts: Mapping[Group, tuple[int, int]] = {}
    tasks: Mapping[Group, Sequence[UnfinishedTask]] = {}


class View(NamedTuple):
    """What to show: `focus` is a cell's tag, or empty for everything; `opened` and `shut` are keys of nodes; `named` is a variable
    that is asked for, so that it is there with all that it came from, whether tasks had to do with it or not."""

    focus: str = ""
    opened: frozenset[str] = frozenset()
    shut: frozenset[str] = frozenset()
    named: str = ""


NOTHING = Notes()
ALL_ENDED = Unfinished()
EVERYTHING = View()


class _Task(msgspec.Struct, gc=False):
    """One of very many, which the garbage collector need not look at."""

    id: bytes
    needs: tuple[bytes, ...]  #: the tasks (or puts) whose results it took
    parent: bytes
    state: str
    seconds: float


class _Sum:
    """`count` is of all, `running` and `queued` of those that have not ended."""

    __slots__ = ("count", "failed", "queued", "running", "seconds", "tasks")

    def __init__(self) -> None:
        self.count, self.failed, self.seconds = 0, 0, 0.0
        self.running, self.queued = 0, 0
        self.tasks: list[_Task] = []

    def with_unfinished(self, running: int, queued: int, tasks: list[_Task]) -> _Sum:
        """As it is now, as a copy: what has ended is bookkeeping for ever, the rest is of this moment."""
        now = _Sum()
        now.count, now.failed, now.seconds = self.count + running + queued, self.failed, self.seconds
        now.running, now.queued, now.tasks = running, queued, [*tasks, *self.tasks]
        return now


class Lineage:
    """Grows with finished tasks. One thread adds, pages ask: hence the lock."""

    def __init__(self) -> None:
        self.groups: dict[Group, _Sum] = {}
        self.edges: Counter[tuple[Group, Group]] = Counter()
        self.children: Counter[tuple[Group, Group]] = Counter()  #: whose tasks submitted whose
        self.puts: dict[Group, dict[bytes, None]] = {}  #: values of the notebook that a group took
        self._names: Counter[str] = Counter()  # different ones, by cell
        self._maker: dict[bytes, Group] = {}
        self._early: dict[bytes, Group] = {}  # children whose parent has not ended
        self.lock = threading.Lock()

    def add(self, title: str, records: list[TraceRecord], tag: str = "") -> None:
        """Tasks of a cell that have ended. Tasks may be named one by one: names beyond NAMES_PER_CELL are one group."""
        groups: dict[str, tuple[Group, _Sum]] = {}
        with self.lock:
            for record in records:
                found = groups.get(record.name)
                if found is None:
                    group = self._group(Group(tag or title, title, record.name))
                    found = groups[record.name] = group, self.groups.setdefault(group, _Sum())
                self._add(*found, record)

    def _group(self, group: Group) -> Group:
        if group not in self.groups:
            self._names[group.tag] += 1
            if self._names[group.tag] > NAMES_PER_CELL:
                return group._replace(name=OTHERS)
        return group

    def _add(self, group: Group, total: _Sum, record: TraceRecord) -> None:
        seconds = max(0, record.ended_ns - record.started_ns) / 1e9 if record.started_ns else 0.0
        total.count += 1
        total.failed += record.state == "FAILED"
        total.seconds += seconds
        needs = tuple({object_[:16] for object_ in record.needs}) if record.needs else ()
        if len(self._maker) < REMEMBERED:
            self._maker[record.id] = group
            total.tasks.append(_Task(record.id, needs, record.parent, record.state, seconds))
        for need in needs:
            source = self._maker.get(need)
            if source is None:
                taken = self.puts.setdefault(group, {})
                if len(taken) < MOST_OPEN:
                    taken[need] = None
            elif source != group:
                self.edges[source, group] += 1
        if record.parent:
            parent = self._maker.get(record.parent)
            if parent is not None and parent != group:
                self.children[parent, group] += 1
            elif parent is None:
                self._early[record.parent] = group
        child = self._early.pop(record.id, None) if self._early else None
        if child is not None and child != group:
            self.children[group, child] += 1

    def group_of(self, task: bytes) -> Group | None:
        """The group that made an object, by the id of its task."""
        return self._maker.get(task)

    def graph(self, notes: Notes = NOTHING, view: View = EVERYTHING, unfinished: Unfinished = ALL_ENDED) -> dict[str, Any]:
        """Nodes and edges, for a page; by cells where groups would be too many."""
        with self.lock:
            now = _Now(self, unfinished)
            fine = _Drawing(now, notes, view, coarse=False).graph()
            chosen = sum(node["key"].startswith(("t:", "m:")) for node in fine["nodes"])
            return fine if len(fine["nodes"]) - chosen <= MOST_NODES else _Drawing(now, notes, view, coarse=True).graph()


class _Now:
    """What has ended and what has not, together, at one moment."""

    def __init__(self, lineage: Lineage, unfinished: Unfinished) -> None:
        self.groups, self.puts = dict(lineage.groups), dict(lineage.puts)
        self.edges, self.children = set(lineage.edges), set(lineage.children)
        self._ended = lineage._maker
        self._maker: dict[bytes, Group] = {}
        self._add(unfinished)

    def group_of(self, task: bytes) -> Group | None:
        return self._ended.get(task) or self._maker.get(task)

    def _add(self, unfinished: Unfinished) -> None:
        tasks = {group: [t for t in some if t.id not in self._ended] for group, some in unfinished.tasks.items()}
        for group, some in tasks.items():
            self._maker.update(dict.fromkeys((task.id for task in some), group))
        for group, (running, queued) in unfinished.counts.items():
            order = sorted(tasks.get(group, ()), key=lambda task: ORDER.index(task.state))
            made = [_Task(task.id, task.needs, task.parent, task.state, 0.0) for task in order]
            self.groups[group] = self.groups.get(group, _Sum()).with_unfinished(running, queued, made)
            self._connect(group, made)

    def _connect(self, group: Group, tasks: list[_Task]) -> None:
        taken = dict(self.puts.get(group, {}))
        for task in tasks:
            for need in task.needs:
                source = self.group_of(need)
                if source is None and len(taken) < MOST_OPEN:
                    taken[need] = None
                elif source is not None and source != group:
                    self.edges.add((source, group))
            parent = self.group_of(task.parent) if task.parent else None
            if parent is not None and parent != group:
                self.children.add((parent, group))
        if taken:
            self.puts[group] = taken


class _Drawing:
    """One graph, at one moment."""

    def __init__(self, lineage: _Now, notes: Notes, view: View, *, coarse: bool) -> None:
        self.lineage, self.view, self.coarse = lineage, view, coarse
        self.cells = {note.tag: note for note in notes.cells}
        self.by_number = {note.number: note for note in notes.cells}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.edges: dict[tuple[str, str], str] = {}
        self.groups: dict[str, list[Group]] = defaultdict(list)
        for group in lineage.groups:
            self.groups[group.tag].append(group)
        asked = self._sources(view.named, notes.variables)
        self.variables = [each for each in notes.variables if each.name in asked or self._matters(each)]
        self._drop_superseded()

    # -- what is in it

    def _sources(self, name: str, every: Collection[VariableNote]) -> set[str]:
        """A variable, and those that it was made from, and those that these were made from."""
        notes = {each.name: each for each in every}
        found, todo = set(), [name] if name in notes else []
        while todo:
            found.add(name := todo.pop())
            made = self.by_number.get(notes[name].maker)
            todo += [each for each in (made.reads if made else ()) if each in notes and each not in found]
        return found

    def _matters(self, note: VariableNote) -> bool:
        """Variables that hold results, that cells with tasks made, or that such cells read."""
        if note.tasks or note.got or (note.maker in self.by_number and self.by_number[note.maker].tag in self.groups):
            return True
        return any(note.name in cell.reads for cell in self.cells.values() if cell.tag in self.groups)

    def _drop_superseded(self) -> None:
        """Earlier runs of cells that ran again, where nothing that is there now came of them."""
        alive = {each.maker for each in self.variables}
        held = {group.tag for each in self.variables for task in (*each.tasks, *each.got) if (group := self.lineage.group_of(task))}
        used = {a.tag for (a, b) in self.lineage.edges if a.tag != b.tag}
        for tag in [tag for tag in self.groups if tag in self.cells and self.cells[tag].again]:
            under_way = any(self.lineage.groups[group].running + self.lineage.groups[group].queued for group in self.groups[tag])
            if self.cells[tag].number not in alive and not under_way and tag not in held | used | {self.view.focus}:
                del self.groups[tag]

    def _shown_cells(self) -> list[CellNote]:
        wanted = {self.by_number[each.maker].tag for each in self.variables if each.maker in self.by_number}
        notes = [note for tag, note in self.cells.items() if tag in self.groups or tag in wanted]
        known = {note.tag for note in notes}
        unknown = [CellNote(0, tag, groups[0].title) for tag, groups in self.groups.items() if tag not in known]
        return [*unknown, *notes]

    # -- nodes

    def graph(self) -> dict[str, Any]:
        for note in self._shown_cells():
            self._cell(note)
        self._tasks()
        for variable in self.variables:
            self._variable(variable)
        self._reads()
        keys = self._kept()
        numbers = {key: i for i, key in enumerate(keys)}
        edges = [[numbers[a], numbers[b], kind] for (a, b), kind in self.edges.items() if a in numbers and b in numbers]
        names = {name: i for i, name in enumerate(dict.fromkeys(group.name for group in self.lineage.groups))}
        for key in keys:
            self.nodes[key]["colour"] = names.get(self.nodes[key].get("name", ""), len(names))
        hidden = len(self.nodes) - len(keys) if self.coarse and not self.view.focus else 0
        return {"nodes": [self.nodes[key] for key in keys], "edges": edges, "coarse": self.coarse, "hidden": hidden}

    def _kept(self) -> list[str]:
        """Keys of what is shown: around the focus, or the latest of everything."""
        keys = list(self.nodes)
        if self.view.focus:
            mine = {key for key, node in self.nodes.items() if node["tag"] == self.view.focus and node["kind"] != "object"}
            above = reached(mine, ((b, a) for a, b in self.edges))
            below = reached(mine, self.edges)
            keys = [key for key in keys if key in above or key in below]
        most = MOST_NODES + MOST_OPEN * len(self.view.opened)
        return keys[-most:] if self.coarse and not self.view.named else keys

    def _open(self, key: str, *, otherwise: bool) -> bool:
        return key in self.view.opened or (otherwise and key not in self.view.shut)

    def _cell(self, note: CellNote) -> None:
        key, groups = f"c:{note.tag}", self.groups.get(note.tag, [])
        sums = [self.lineage.groups[group] for group in groups]
        total, failed = sum(each.count for each in sums), sum(each.failed for each in sums)
        state = _under_way(sum(each.running for each in sums), sum(each.queued for each in sums), total)
        parts = [
            state["state"],
            f"ran again as {note.again}" if note.again else "",
            words.count_text(total, "task") if total else "",
        ]
        parts += [f"{failed:,} failed" if failed else "", note.heading]
        self._node(
            key, "cell", note.title, _joined(*parts), tag=note.tag, title=note.title, tasks=total,
            stale=note.stale, expands=bool(groups), open=self._open(key, otherwise=not self.coarse), **state,
        )  # fmt: skip

    def _tasks(self) -> None:
        """Groups and single tasks of cells that are open, and what lies between them."""
        self.place: dict[Group, str] = {}
        single: set[Group] = set()
        for tag, groups in self.groups.items():
            if not self._open(f"c:{tag}", otherwise=not self.coarse):
                self.place |= dict.fromkeys(groups, f"c:{tag}")
                continue
            for group in groups:
                total = self.lineage.groups[group]
                self.place[group] = group.key
                if self._open(group.key, otherwise=not self.coarse and total.count <= SINGLE) and total.tasks:
                    single.add(group)
                else:
                    self._group(group, total)
        for group in self.place:  # in the order in which they came
            if group in single:
                self._singles(group)
        self._between(single)

    def _title(self, group: Group) -> str:
        """What people call its cell: whoever adds tasks before that is known gives the tag as the title."""
        note = self.cells.get(group.tag)
        return note.title if note is not None and group.title == group.tag else group.title

    def _group(self, group: Group, total: _Sum) -> None:
        label = group.name if total.count == 1 else f"{group.name} ×{total.count:,}"
        state = _under_way(total.running, total.queued, total.count)
        took = words.seconds_text(total.seconds) if total.count > total.running + total.queued else ""
        failed = f"{total.failed:,} failed" if total.failed else ""
        self._node(
            group.key, "task", label, _joined(state["state"], self._title(group), took, failed), tag=group.tag, title=group.title,
            tasks=total.count, expands=bool(total.tasks) and total.count > 1, name=group.name, **state,
        )  # fmt: skip

    def _singles(self, group: Group) -> None:
        total = self.lineage.groups[group]
        several = total.count > 1
        shown = sorted(total.tasks[:MOST_OPEN], key=lambda task: task.id)  # as they were submitted, whatever ends first
        for number, task in enumerate(shown):
            label = f"{group.name} #{number}" if several else group.name
            state = _under_way(task.state == "RUNNING", task.state in {"QUEUED", "WAITING"}, 1)
            if task.state == "WAITING":
                state["state"] = words.WAITS
            took = "" if state["state"] else words.seconds_text(task.seconds)
            ended = "" if state["state"] or task.state == "FINISHED" else task.state.lower()
            self._node(
                f"t:{task.id.hex()}", "task", label, _joined(state["state"], ended, self._title(group), took), tag=group.tag,
                title=group.title, tasks=1, open=several, expands=several, group=group.key, name=group.name, **state,
            )  # fmt: skip
        rest = total.count - len(shown)
        if rest > 0:
            going = sum(task.state == "RUNNING" for task in shown), sum(task.state in {"QUEUED", "WAITING"} for task in shown)
            state = _under_way(max(0, total.running - going[0]), max(0, total.queued - going[1]), rest)
            detail = _joined(state["state"], self._title(group))
            self._node(
                f"m:{group.key}", "task", f"{group.name}: {rest:,} more", detail, tag=group.tag, title=group.title,
                tasks=rest, open=True, expands=True, group=group.key, name=group.name, **state,
            )  # fmt: skip

    def _between(self, single: set[Group]) -> None:
        for counted, kind in ((self.lineage.edges, "data"), (self.lineage.children, "submits")):
            for a, b in counted:
                if a in self.place and b in self.place and not (a in single or b in single):
                    self._edge(self.place[a], self.place[b], kind)
        children = {b for _, b in self.lineage.children}
        for group, key in self.place.items():
            if key.startswith("g:") and group not in single and group not in children:
                self._edge(f"c:{group.tag}", key, "submits")
        if not single:
            return
        near = {b for a, b in self.lineage.edges if a in single} | {b for a, b in self.lineage.children if a in single} | single
        for group in near & self.place.keys():
            for task in self.lineage.groups[group].tasks:
                here = self._where(task.id)
                for need in task.needs:
                    self._edge(self._where(need), here, "data")
                above = self._where(task.parent) if task.parent else f"c:{group.tag}"
                if group in single or above.startswith(("t:", "m:")):
                    self._edge(above, here, "submits")

    def _where(self, task: bytes) -> str:
        """The node that a task is in; empty for what is not known."""
        if (key := f"t:{task.hex()}") in self.nodes:
            return key
        group = self.lineage.group_of(task)
        if group is None or group not in self.place:
            return ""
        return f"m:{group.key}" if f"m:{group.key}" in self.nodes else self.place[group]

    def _places(self, group: Group) -> list[str]:
        """The nodes that a group's tasks are in."""
        place = self.place.get(group, "")
        if place in self.nodes:
            return [place]
        return [key for task in self.lineage.groups[group].tasks[:MOST_OPEN] if (key := self._where(task.id))]

    def _variable(self, note: VariableNote) -> None:
        key = f"v:{note.name}"
        made = self.by_number.get(note.maker)
        parts = [note.said, f"from {made.title}" if made else ""]
        self._node(
            key, "object", note.name, _joined(*parts), tag=made.tag if made else "",
            title=made.title if made else "", stale=note.stale,
        )  # fmt: skip
        sources = {self._where(task) for task in note.tasks} - {""}
        fetched = {self._where(task) for task in note.got} - {""}
        own = [group for group in self.groups.get(made.tag, ()) if group.name.rpartition(".")[2] in note.called] if made else []
        fetched.update(place for group in own for place in self._places(group))
        # What its cell read, and handed to tasks whose results these are, is above them already.
        fetched -= {a for (a, b), kind in self.edges.items() if kind == "data" and a in fetched and (b in fetched or b in sources)}
        for source in sorted(sources | fetched)[:MOST_OPEN]:
            self._edge(source, key, "data")
        if made is not None and not sources and not any(self.nodes[source]["tag"] == made.tag for source in fetched):
            self._edge(f"c:{made.tag}", key, "data")
        puts = set(note.tasks)
        for group, taken in self.lineage.puts.items():
            if group in self.place and not puts.isdisjoint(taken):
                self._edge(key, self.place[group], "data")

    def _reads(self) -> None:
        """From what a cell read to the cell: the variable, or the cell that made the version that it read."""
        now = {each.name: each.maker for each in self.variables}
        for note in self.cells.values():
            for name, version in note.reads.items():
                if f"c:{note.tag}" not in self.nodes or name not in now:
                    continue
                if now[name] < note.number:
                    self._edge(f"v:{name}", f"c:{note.tag}", "data")
                elif (before := self.by_number.get(version)) is not None:
                    self._edge(f"c:{before.tag}", f"c:{note.tag}", "data")

    def _edge(self, source: str, target: str, kind: str) -> None:
        if source and target and source != target and source in self.nodes and target in self.nodes:
            self.edges.setdefault((source, target), kind)

    def _node(self, key: str, kind: str, label: str, detail: str, **facts: Any) -> None:
        note = self.cells.get(facts["tag"])  # a job's title is its own; where to jump is its cell's
        place = {"cell": note.cell, "title": note.title} if note is not None else {"cell": ""}
        self.nodes[key] = {"key": key, "kind": kind, "label": label, "detail": detail, **facts, **place}


def reached(start: Iterable[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    """Everything that can be reached from `start`, itself included."""
    after: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        after[a].append(b)
    seen, todo = set(start), list(start)
    while todo:
        for other in after[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _under_way(running: int, queued: int, total: int) -> dict[str, Any]:
    """How many of a node's tasks run and wait, in words and as numbers for its mark; nothing of what has ended."""
    if not running and not queued:
        return {"state": ""}
    if total == 1:
        return {"state": words.RUNNING if running else words.QUEUED, "running": int(running), "queued": int(queued)}
    parts = [f"{words.RUNNING[0]} {running:,} running" if running else "", f"{queued:,} queued" if queued else ""]
    said = ", ".join(part for part in parts if part)
    return {"state": said if running else f"{words.QUEUED[0]} {said}", "running": running, "queued": queued}
