"""Which cell made each variable, from which others, and whether those have changed since. Pure: told what ran, asked what follows.

    In[1] data = ...      In[2] model = fit(data)      In[3] data = ...      `model` is stale: In[3] changed data
                                                                             after In[2] had read it

A *run* is one execution of a cell. A variable's *version* is the number of the run that changed its value last; the run that made
it may be a later one, which came to the same. What a run read is worked out from its source, and only when somebody asks: cells
that nobody asks about cost a comparison of their names.

Functions count through what they read: `y = f(x)` depends on `f`, on `x`, and on the globals that `f` reads. What is changed in
place by a call (`xs.append(1)`) is beyond what names can tell, as in `capture.py`.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nbray.notebook.capture import PRIVATE_TO_IPYTHON, to_python
from nbray.notebook.fetched import SHOWN, Flow, fetched, of_functions
from nbray.notebook.scopes import reach
from nbray.notebook.walk import Walker

RUNS_KEPT = 5000
READS_OF_FUNCTIONS = 10  #: functions that call functions: so deep
#: Cell magics whose body is Python of the notebook.
TRANSPARENT = frozenset({"remote", "time", "timeit", "capture", "prun"})
WORD = re.compile(r"[^\W\d]\w*")


def is_shown(name: str) -> bool:
    """Whether it is an entry of `Out` rather than a variable."""
    return name.startswith("Out[")


class Parsed(NamedTuple):
    """What the source of a run says."""

    reads: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()  #: read at all, also what the run itself has bound
    changed: frozenset[str] = frozenset()  #: bound, or changed in place
    bodies: dict[str, frozenset[str]] = {}  #: what functions and classes of the run read when they are called
    fetched: dict[str, Flow] = {}  #: what was made of results that it fetched, and what that leads back to
    functions: dict[str, Flow] = {}  #: the same of the functions that it defines


class Run:
    """One execution of a cell. `tag` is the id of its request, `cell` the front end's id of the cell, where there is one."""

    __slots__ = ("binds", "cell", "number", "parsed", "results", "source", "suspects", "tag", "title")

    def __init__(self, number: int, title: str, tag: str, cell: str, source: str) -> None:
        self.number, self.title, self.tag, self.cell, self.source = number, title, tag, cell, source
        self.binds: tuple[str, ...] = ()  #: names whose value changed
        self.suspects: tuple[str, ...] = ()  #: names that hold the same object, which the source may have changed in place
        self.parsed: Parsed | None = None
        self.results: dict[str, Sequence[bytes]] = {}  #: the tasks of a job, by the names that it bound; SHOWN: what it showed

    @property
    def heading(self) -> str:
        """The last line that begins a statement: what the cell is for usually stands at its end."""
        lines = (line.rstrip() for line in reversed(self.source.splitlines()))
        return next((line for line in lines if line and line[0] not in " \t#)]}%@\"'"), "")


class Provenance:
    """All runs of a notebook. The main thread alone tells; whoever asks may be another, one at a time."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self._changed: dict[str, list[int]] = {}  # name -> numbers of the runs that changed its value, ascending
        self._maker: dict[str, int] = {}
        self._resolved = 0
        self._last = 0
        self._inputs: dict[int, dict[str, int]] = {}
        self._of_cell: dict[str, Run] = {}  # the latest, by the front end's id of the cell
        self._ended: dict[str, Run] = {}  # by title

    # -- facts in

    def begin(self, title: str, tag: str, cell: str, source: str) -> Run:
        """A cell starts."""
        self._last += 1
        run = self.runs[self._last] = Run(self._last, title, tag, cell, source)
        if cell:
            self._of_cell[cell] = run
        if len(self.runs) > RUNS_KEPT:
            self._forget(next(iter(self.runs.values())))
        return run

    def _forget(self, run: Run) -> None:
        del self.runs[run.number]
        self._inputs.pop(run.number, None)
        for index, key in ((self._of_cell, run.cell), (self._ended, run.title)):
            if index.get(key) is run:
                del index[key]

    def end(self, run: Run, binds: Iterable[str], suspects: Iterable[str] = ()) -> None:
        """It has ended; `binds` are names that have another value now, `suspects` those that may have changed in place."""
        run.binds = tuple(binds)
        run.suspects = tuple(suspects)
        self._ended[run.title] = run
        self._resolved = min(self._resolved, run.number - 1)  # whoever asked while it ran was told what it had not done yet
        for name in run.binds:
            self._bind(name, run.number)

    def delivered(self, run: Run, names: Sequence[str]) -> None:
        """An earlier run's job has bound `names` just now."""
        for name in names:
            self._bind(name, self._last)
            self._maker[name] = run.number
        run.binds = tuple(dict.fromkeys([*run.binds, *names]))

    def _bind(self, name: str, number: int) -> None:
        numbers = self._changed.setdefault(name, [])
        if number not in numbers[-2:]:
            insort(numbers, number)
        self._maker[name] = max(number, self._maker.get(name, 0))

    # -- questions

    def maker(self, name: str) -> Run | None:
        """The run that bound `name` last."""
        self._resolve()
        return self.runs.get(self._maker.get(name, 0))

    def shown_by(self, name: str) -> Run | None:
        """The run whose last value is `Out[n]`."""
        return self._ended.get(f"In{name.removeprefix('Out')}")

    def source(self, name: str) -> Run | None:
        """The run that bound the variable `name` last, or that showed what `Out[n]` is."""
        return self.shown_by(name) if is_shown(name) else self.maker(name)

    def fetched(self, name: str) -> Flow:
        """What the value of `name` was made of, where its run fetched results of tasks: names that hold the same still, and
        functions whose tasks it submitted itself."""
        run = self.source(name)
        self._resolve()
        if run is None or run.parsed is None:
            return Flow()
        flow = self._through_functions(run.parsed.fetched.get(SHOWN if is_shown(name) else name, Flow()))
        if not flow.fetched:
            return Flow()
        return flow._replace(names=frozenset(each for each in flow.names if self._changed.get(each, [0])[-1] <= run.number))

    def _through_functions(self, flow: Flow) -> Flow:
        """With what the functions of the notebook do that it went through."""
        todo, seen = sorted(flow.calls), set(flow.calls)
        while todo:
            called = todo.pop()
            definer = self.runs.get(self._maker.get(called, 0))
            if definer is not None and definer.parsed is not None and called in definer.parsed.functions:
                inner = definer.parsed.functions[called]
                flow |= inner
                todo += sorted(inner.calls - seen)
                seen |= inner.calls
        return flow

    def inputs(self, run: Run) -> dict[str, int]:
        """What the run read: names, and the number of the run that had bound each; names from before the first run are left out."""
        self._resolve()
        known = self._inputs.get(run.number)
        if known is None:
            known = self._inputs[run.number] = self._inputs_of(run)
        return known

    def stale(self, name: str) -> str:
        """Why the value of `name` is not what its cell would make now; empty when it is."""
        run = self.source(name)
        self._resolve()
        return "" if run is None else self._why(run, frozenset({name}))

    def stale_run(self, run: Run) -> str:
        """The same of everything that a run made."""
        self._resolve()
        return self._why(run, frozenset())

    def _why(self, run: Run, asked: frozenset[str]) -> str:
        inputs = self.inputs(run)
        for name, version in inputs.items():
            later = self._changed[name][bisect_right(self._changed[name], version) :]
            later = [number for number in later if number != run.number]
            if later:
                by = self.runs.get(later[-1])
                return f"{name} was changed by {by.title if by else 'a later cell'} after {run.title} had read it"
        for name in inputs:
            if name in asked:
                continue
            source = self.maker(name)
            if source is not None and source is not run and self._why(source, asked | {name}):
                return f"it was made from {name}, which is stale"
        return ""

    def superseded(self, run: Run) -> Run | None:
        """The latest run of the same cell, if that is another."""
        if not run.cell:
            return None
        latest = self._of_cell.get(run.cell, run)
        return None if latest is run else latest

    # -- how

    def _resolve(self) -> None:
        """Read the sources of runs that have not been looked at."""
        for number in range(self._resolved + 1, self._last + 1):
            run = self.runs.get(number)
            if run is None:
                continue
            run.parsed = parsed(run.source)
            for name in run.suspects:
                if name in run.parsed.changed:
                    self._bind(name, number)
            for name in run.parsed.changed & self._maker.keys():
                self._maker[name] = max(number, self._maker[name])
        self._resolved = self._last

    def _inputs_of(self, run: Run) -> dict[str, int]:
        found: dict[str, int] = {}
        seen: set[str] = set()
        assert run.parsed is not None
        todo = [(name, 0) for name in sorted(run.parsed.reads)]
        for name in run.parsed.used & run.parsed.bodies.keys():
            todo += [(inner, 1) for inner in sorted(run.parsed.bodies[name] - run.parsed.changed)]
        while todo:
            name, depth = todo.pop(0)
            if name in seen:
                continue
            seen.add(name)
            version = self._version(name, run.number)
            if not version:
                continue
            found[name] = version
            binder = self.runs.get(version)
            if binder is not None and binder.parsed is not None and depth < READS_OF_FUNCTIONS:
                todo += [(inner, depth + 1) for inner in sorted(binder.parsed.bodies.get(name, ()))]
        return found

    def _version(self, name: str, before: int) -> int:
        """The run that had bound `name` when run `before` began; 0 for none."""
        numbers = self._changed.get(name, [])
        at = bisect_left(numbers, before)
        return numbers[at - 1] if at else 0


class _Direct(Walker):
    """The pass of `capture.py`, which keeps apart what functions read when they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, set[str]] = {}
        self.used: set[str] = set()
        self._inside = ""

    def read(self, name: str, line: int, *, certain: bool = True) -> None:
        self.used.add(name)
        super().read(name, line, certain=certain)

    def later(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        if isinstance(node, ast.Lambda):
            super().later(node)
        else:
            reached = reach(node)
            self.bodies.setdefault(self._inside or node.name, set()).update(reached.reads)

    def do_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802 -- named after the node
        outer, self._inside = self._inside, self._inside or node.name
        super().do_ClassDef(node)
        self._inside = outer


def parsed(source: str) -> Parsed:
    """Nothing for what is no Python: the cell has failed, or belongs to somebody else's magic."""
    extra: set[str] = set()
    away = False  # in a worker: what came back is known by its tasks
    if source.lstrip().startswith("%%"):
        first, _, body = source.lstrip().partition("\n")
        if first[2:].split(None, 1)[0:1] and first[2:].split(None, 1)[0] not in TRANSPARENT:
            return Parsed()
        extra, source, away = set(WORD.findall(first)), body, first.startswith("%%remote")
    try:
        tree = ast.parse(to_python(source, 1))
    except (SyntaxError, ValueError, RecursionError):
        return Parsed()
    walker = _Direct()
    walker.block(tree.body)
    reads = frozenset(walker.reads.keys() | extra) - PRIVATE_TO_IPYTHON
    changed = frozenset(walker.binds.keys() | walker.mutated)
    bodies = {name: frozenset(body) for name, body in walker.bodies.items()}
    return Parsed(reads, frozenset(walker.used), changed, bodies, {} if away else fetched(tree.body), of_functions(tree.body))
