"""`%nbray WORD ...`: the cluster in text and tables, and the few verbs that steer it."""

from __future__ import annotations

import argparse
import difflib
import json
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from IPython.core import magic_arguments
from IPython.core.error import UsageError

import nbray
from nbray import session
from nbray.cards import cluster_page, words
from nbray.cards.lineage import STALE
from nbray.columns import Filter
from nbray.exceptions import HeadUnavailableError, RayError
from nbray.notebook import debugging, display, interrupt, scaling
from nbray.notebook.arguments import (
    DEFAULTS,
    NOT_CONFIGURABLE,
    data_args,
    option_names,
    output_args,
    parse,
    place_args,
    run_args,
    unquoted,
)
from nbray.notebook.background import Left
from nbray.notebook.cards import Card
from nbray.notebook.current import Notebook
from nbray.notebook.holders import held_objects, named_ids, objects_text
from nbray.notebook.job import Job
from nbray.notebook.stream import Message
from nbray.util.state.api import entries
from nbray.util.state.common import Entry
from nbray.util.state.exception import RayStateApiException
from nbray.util.state.watching import Lookout

SHOWN_ROWS = 50
HELP = ("-h", "--help")
OWN_NAMES = {"background": "bg"}  #: options whose names are not those of their fields
#: A cluster that has not answered by then is not well, and that is the answer.
PATIENCE_S = 1.5
LOG_LINES = 40


@magic_arguments.magic_arguments()
@data_args
@place_args
@run_args
@output_args
@magic_arguments.argument("--reset", action="store_const", const=True, help="forget what was set")
def config(_line: str) -> None:
    """Set defaults for the options of %%remote in this notebook; without options, show them."""


@magic_arguments.magic_arguments()
@magic_arguments.argument("--address", type=unquoted, help="a running cluster; without one a local cluster starts")
@magic_arguments.argument("--num-cpus", type=float, help="CPUs of the local cluster")
@magic_arguments.argument("--num-gpus", type=float, help="GPUs of the local cluster")
@magic_arguments.argument("--namespace", type=unquoted, help="where named actors live")
def init(_line: str) -> None:
    """Start a local cluster, or attach to one."""


@magic_arguments.magic_arguments()
@magic_arguments.argument("which", nargs="?", type=unquoted, help="a handle's variable, `all`, or nothing for the last job")
@magic_arguments.argument("--force", action="store_true", help="kill the workers")
def cancel(_line: str) -> None:
    """Cancel a job of this notebook."""


@magic_arguments.magic_arguments()
@magic_arguments.argument("match", nargs="?", type=unquoted, help="part of a log file's name, such as a process id")
@magic_arguments.argument("-n", "--lines", type=int, default=LOG_LINES, help="lines of each file's end")
def logs(_line: str) -> None:
    """Show the ends of the cluster's log files."""


def _counts(text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers. Raises argparse's error for anything else."""
    try:
        return tuple(int(each) for each in unquoted(text).split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no list of numbers such as 1,2,4") from None


@magic_arguments.magic_arguments()
@magic_arguments.argument("cell", nargs="?", type=unquoted, help="the cell's number or title, or nothing for the last one")
@magic_arguments.argument("--cores", type=_counts, help="cores of each node: 1,2,4,8,16 unless given")
@magic_arguments.argument("--nodes", type=int, default=1, help="nodes")
def plan(_line: str) -> None:
    """Say how long a cell's tasks would take on other machines: they are run again by the real scheduler, in virtual time."""


@magic_arguments.magic_arguments()
@magic_arguments.argument("cell", nargs="?", type=unquoted, help="the cell's number or title, or nothing for the last one")
@magic_arguments.argument("--save", metavar="FILE", type=unquoted, help="write what ran where and when for Perfetto; show nothing")
def timeline(_line: str) -> None:
    """Show which worker ran which task of a cell when, and what came of it: the cell's card."""


class Subcommands:
    """The words after %nbray."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self._lookout = Lookout()
        self.words: dict[str, tuple[Callable[[str], Any], str]] = {
            "status": (self.status, "what this notebook is attached to, what is used, what runs, and why what waits does"),
            "init": (self.init, "start or attach: --num-cpus N, --address A"),
            "scale": (self.scale, "more or fewer CPUs, or nodes: CPUS [--node ID], --nodes N [--num-cpus C]"),
            "attach": (self.attach, "attach to a running cluster: [ADDRESS], without one to the cluster that runs here"),
            "stop": (self.stop, "leave the cluster; a local one ends"),
            "tasks": (self.tasks, "tasks, latest first"),
            "actors": (self.actors, "actors and their states"),
            "objects": (self.objects, "what the names of this notebook hold, who else holds it, and what no name holds"),
            "cancel": (self.cancel, "cancel the last job, a handle, or all: [NAME|all] [--force]"),
            "logs": (self.logs, "the ends of log files: [PART OF NAME] [-n LINES]"),
            "debug": (self.debug, "frames and variables of a task that failed: [NAME] [--item K] [--rerun] [-c COMMAND]"),
            "timeline": (self.timeline, "which worker ran what when in a cell: [CELL] [--save FILE], for Perfetto"),
            "plan": (self.plan, "how long a cell would take on other machines: [CELL] [--cores 1,2,4] [--nodes N]"),
            "lineage": (self.lineage, "what a variable, a cell or a function's tasks come from, and whether it is stale: [NAME]"),
            "last": (
                self.last,
                "the handle of the last %%remote cell, or what a plain cell waited for when it was sent to the background",
            ),
            "config": (self.config, "defaults for the options of %%remote"),
        }

    def run(self, line: str) -> Any:
        """Do what `line` says. Raises UsageError with the word that was probably meant."""
        word, _, rest = line.strip().partition(" ")
        if not word or word == "help" or word in HELP or rest.strip() in HELP:
            asked = [word] if word in self.words else self.words
            rows = [(each, self.words[each][1]) for each in asked]
            self._show(display.table("%nbray", ["word", "what it does"], rows, "none"))
            return None
        found = self.words.get(word)
        if found is None:
            near = difflib.get_close_matches(word, self.words, n=1, cutoff=0.5)
            hint = f"did you mean %nbray {near[0]}?" if near else f"there is: {', '.join(self.words)}"
            raise UsageError(f"%nbray has no {word}; {hint}")
        return found[0](rest.strip())

    def options(self, word: str) -> list[str]:
        """The options that a word takes, for completion."""
        taking: dict[str, Any] = {
            "config": config,
            "init": init,
            "cancel": cancel,
            "logs": logs,
            "debug": debugging.debug,
            "plan": plan,
            "timeline": timeline,
            "scale": scaling.scale,
        }
        return option_names(taking[word]) if word in taking else []

    # -- looking

    def status(self, rest: str) -> None:
        _nothing("status", rest)
        engine = session.engine
        if engine is None:
            self._show(display.facts("nbray", {"attached to": "none yet: a local cluster starts on first use"}))
            return
        about = engine.description()
        try:
            engine.nodes(PATIENCE_S)
            snapshot = self._lookout.look(engine)
        except HeadUnavailableError as error:
            self._show(display.facts("nbray", {"attached to": f"{about.get('address')}, which does not answer", "why": str(error)}))
            return
        pairs = {name: about.get(name) for name in ("address", "session", "cpus_from", "log_directory")}
        called = {"address": "attached to", "cpus_from": "begun with", "log_directory": "logs"}
        self._show(display.facts("nbray", {called.get(name, name): told for name, told in pairs.items() if told}))
        self._show({"text/plain": cluster_page.text(snapshot), "text/html": cluster_page.page(snapshot)})

    def tasks(self, rest: str) -> None:
        _nothing("tasks", rest)
        self._list(
            "tasks",
            ["name", "state", "attempt", "worker_pid", "error_type", "call_site", "task_id"],
            also=lambda task: {"attempt": task["attempt_number"] + 1},  # as errors count: the first is attempt 1
        )

    def actors(self, rest: str) -> None:
        _nothing("actors", rest)
        self._list("actors", ["class_name", "name", "state", "pid", "node_id", "waiting_for", "actor_id"])

    def objects(self, rest: str) -> None:
        _nothing("objects", rest)
        engine, namespace = session.engine, self.notebook.namespace
        if engine is None:
            self._show(display.table("objects", [], [], "no cluster yet"))
            return
        found = held_objects(namespace, engine, self.notebook.history.stale)
        rows = [
            (
                row["names"],
                row["type"],
                _size(row["size"]),
                row["state"] + (f", {STALE}" if row["stale"] else ""),
                row["where"],
                row["holders"],
                row["line"],
            )
            for row in found["rows"][:SHOWN_ROWS]
        ]
        columns = ["held by", "what", "size", "state", "node", "also held by", "made at"]
        self._show(display.table(objects_text(found), columns, rows, "no variable holds any"))
        if len(found["rows"]) > SHOWN_ROWS:
            self._say(f"… {len(found['rows']) - SHOWN_ROWS:,} more\n")
        rest_of = engine.unnamed(named_ids(namespace))[:SHOWN_ROWS]
        if rest_of:
            others = [(row["line"] or "unknown", f"{row['objects']:,}", _size(row["size"]), row["state"]) for row in rest_of]
            self._show(display.table("objects that no variable holds", ["made at", "how many", "size", "state"], others, "none"))

    def logs(self, rest: str) -> None:
        given = parse(logs, rest)
        engine = session.engine
        if engine is None:
            raise UsageError("there is no cluster yet, so there are no logs; it starts on first use, or with %nbray init")
        directory = pathlib.Path(str(engine.description().get("log_directory")))
        files = sorted(directory.glob("**/*.log")) if directory.is_dir() else []
        chosen = [path for path in files if given.get("match", "") in path.name]
        if not chosen:
            near = ", ".join(path.name for path in files) or "none"
            raise UsageError(f"no log file in {directory} matches {given.get('match', '')!r}; there is: {near}")
        for path in chosen:
            self._show(display.facts(str(path), {}))
            text = "\n".join(path.read_text(errors="replace").splitlines()[-given["lines"] :])
            self._say(text + "\n" if text else "(empty)\n")

    def debug(self, rest: str) -> None:
        debugging.run(self.notebook, rest)

    def _card(self, cell: str, what: str) -> Card:
        """The card of a cell, by its number or title; of the last one without."""
        desk = self.notebook.desk
        if desk is None:
            raise UsageError(f"a {what} is made of what a card has seen, and this front end has none")
        title = f"In[{cell}]" if cell.isdigit() else cell
        card = desk.find(title)
        if card is None:
            raise UsageError(f"no tasks of {title or 'a cell'} are known; cells that are: {', '.join(desk.ended) or 'none'}")
        return card

    def timeline(self, rest: str) -> None:
        given = parse(timeline, rest)
        card, file = self._card(str(given.get("cell") or ""), "timeline"), given.get("save")
        if file is None:
            self._show(card.bundle())
            return
        events = card.chrome_trace()
        try:
            pathlib.Path(file).expanduser().write_text(json.dumps(events), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"%nbray timeline --save {file}: {error.strerror}") from None
        self._say(f"nbray: {words.count_text(len(events), 'event')} of {card.run.title} in {file}; ui.perfetto.dev opens it\n")

    def plan(self, rest: str) -> None:
        given = parse(plan, rest)
        card = self._card(str(given.get("cell") or ""), "plan")
        try:
            told = card.forecast(given.get("cores"), given["nodes"])
        except ValueError as error:
            raise UsageError(f"%nbray plan: {error}") from None
        self._show(display.plan(card.run.title, told))

    def lineage(self, rest: str) -> None:
        history, name = self.notebook.history, unquoted(rest)
        if name:
            try:
                lines = history.text(name)
            except LookupError as error:
                raise UsageError(f"nothing called {name} is in the lineage; there is: {error}") from None
            self._show(display.lines(lines))
            return
        variables = [node for node in history.graph()["nodes"] if node["kind"] == "object"]
        rows = [(node["label"], node["detail"], f"{STALE}: {node['stale']}" if node["stale"] else "") for node in variables]
        self._show(display.table("lineage", ["variable", "what", ""], rows, "no variable comes from a cell with tasks yet"))

    def last(self, rest: str) -> Job | Left:
        _nothing("last", rest)
        if self.notebook.latest is None:
            raise UsageError("there is no job yet: %%remote over a cell makes one, and so does a card's Background button")
        return self.notebook.latest

    # -- steering

    def init(self, rest: str) -> Any:
        given = parse(init, rest)
        context = nbray.init(**given)
        self.notebook.engine()
        return context

    def scale(self, rest: str) -> None:
        self._say(f"nbray: {scaling.run(rest)}\n")

    def attach(self, rest: str) -> Any:
        try:
            return self.init(f"--address {rest or 'auto'}")
        except (ConnectionError, RayError) as error:
            raise UsageError(f"%nbray attach: {error}") from None

    def stop(self, rest: str) -> None:
        _nothing("stop", rest)
        if session.engine is None:
            self._say("nbray: there is no cluster to stop\n")
            return
        nbray.shutdown()
        self._say("nbray: stopped\n")

    def cancel(self, rest: str) -> None:
        given = parse(cancel, rest)
        which, force = given.get("which"), bool(given.get("force"))
        if which == "all":
            every: list[Job | Left] = [*self.notebook.jobs, *self.notebook.left]
            jobs = [job for job in every if not job.done()]
        elif which is None:
            jobs = [self.last("")]
        else:
            value = self.notebook.namespace.get(which)
            if not isinstance(value, Job | Left):
                raise UsageError(f"{which} is not the handle of a job; %%remote --handle {which} would keep one there")
            jobs = [value]
        told = [interrupt.cancel(job.engine, [job.tag], force) for job in jobs]
        self._say(f"nbray: {interrupt.Stopped(sum(each.tasks for each in told), sum(each.calls for each in told))}\n")

    def config(self, rest: str) -> None:
        given = parse(config, rest)
        own = sorted(NOT_CONFIGURABLE & set(given))
        if own:
            raise UsageError(f"{', '.join(own)} belongs to one cell, so it has no default; give it with %%remote")
        configured = self.notebook.configured
        if given.pop("reset", False):
            configured.clear()
        configured.update(given)
        rows = [
            (
                OWN_NAMES.get(name, name.replace("_", "-")),
                _setting(name, configured.get(name, getattr(DEFAULTS, name))),
                "set here" if name in configured else "default",
            )
            for name in DEFAULTS.__dataclass_fields__
            if name not in NOT_CONFIGURABLE
        ]
        self._show(display.table("defaults of %%remote", ["option", "value", "from"], rows, "none"))

    # -- showing

    def _list(
        self,
        kind: str,
        columns: Sequence[str],
        filters: Sequence[Filter] = (),
        also: Callable[[Entry], dict[str, Any]] = lambda _entry: {},
    ) -> None:
        """The State API's answer as a table."""
        if session.engine is None:
            self._show(display.table(kind, [], [], "no cluster yet"))
            return
        try:
            found = entries(kind, filters, SHOWN_ROWS, detail=True)
        except RayStateApiException as error:
            raise UsageError(f"%nbray {kind}: {error}") from None
        rows = [[_cell(column, {**entry, **also(entry)}.get(column)) for column in columns] for entry in found]
        self._show(display.table(kind, columns, rows, "none"))
        if found.total > len(found):
            self._say(f"… {found.total - len(found):,} more; nbray.util.state.list_{kind}(limit=...) lists them\n")
        for problem in found.problems:
            self._say(f"not told: {problem}\n")

    def _show(self, bundle: display.Bundle) -> None:
        content = {"data": bundle, "metadata": {}, "transient": {}}
        self.notebook.router.show(self.notebook.tag, Message("display_data", content))

    def _say(self, text: str) -> None:
        self.notebook.router.show(self.notebook.tag, Message("stream", {"name": "stdout", "text": text}))


def _nothing(word: str, rest: str) -> None:
    if rest:
        raise UsageError(f"%nbray {word} takes nothing after it, and there is {shlex.quote(rest)}")


def _size(size: int | None) -> str:
    return "" if size is None else words.bytes_text(size)


def _setting(name: str, value: Any) -> str:
    """A default as it would be written after its option."""
    if value is None:
        return "automatic" if name == "chunk" else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in {"max_fetch", "max_output", "memory"}:
        return words.bytes_text(value)
    if name in {"timeout", "progress_after"}:
        return f"{value:g} s"
    if isinstance(value, dict):
        return ",".join(f"{key}={each}" for key, each in value.items())
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _cell(column: str, value: Any) -> str:
    if value is None or (column == "object_size" and value < 0):
        return ""
    if column == "object_size":
        return words.bytes_text(value)
    text = str(value)
    return text if len(text) <= 40 else f"{text[:8]}…{text[-12:]}"
