"""The shape of the source: which way imports point, what may be imported where machines decide, how long things may get.

`docs/architecture.md` says it in words; this is the same, enforced on every module.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nbray"

#: Bottom first. A module imports from its own layer and from those before it. A name is a module or package of nbray.
LAYERS = [
    {"absent", "exceptions", "identifiers", "ids", "machine", "config", "trace", "columns", "describing", "handlers"}
    | {"progress", "serializability", "shown", "sourcelines"},
    {"wire"},
    {"sched", "store", "inquiry"},
    # Below the engines, which make references; the port is declarations.
    {"session", "refs", "generators", "engines.port", "job_config", "logging_config"},
    {"head", "node", "owner"},
    {"driver"},
    {"environments"},  # asks the head, as a viewer does
    {"engines"},
    {"worker"},  # an engine, and what runs tasks beside it
    {
        "actor",
        "actors",
        "api",
        "client_builder",
        "cloudpickle",
        "connection",
        "cross_language",
        "dag",
        "definitions",
        "functions",
        "keeping",
        "options",
        "pages",
        "remote_function",
        "runtime_context",
        "runtime_env",
        "signatures",
        "types",
    }
    | {"nbray", "strategies"},
    {"cards"},
    {"testing"},
    {"planning"},
    {"notebook", "dashboard", "server", "widgets", "util", "state", "experimental", "job_submission", "microbenchmark"},
    {"cli", "cli_actors", "cli_dashboard", "cli_jobs", "cli_logs", "cli_microbenchmark", "cli_ray", "cli_state"}
    | {"cli_tables", "__main__"},
]
ROLES = {"head", "node", "owner"}

PURE = [
    "machine",
    "ids",
    "columns",
    "inquiry",
    "sched.*",
    "store.allocator",
    "store.ledger",
    "head.state",
    "node.state",
    "owner.state",
    "worker.state",
    "wire.link",
]
IMPURE_IMPORTS = {
    *("asyncio", "concurrent", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors"),
    *("socket", "sqlite3", "subprocess", "threading", "time", "zmq", "psutil"),
}
#: Below machines, and yet: `ids` needs randomness, `config` the environment, `exceptions` the separator in paths.
IMPURE_ALLOWED = {"ids": {"os"}, "config": {"os"}, "exceptions": {"os"}}

#: (module, what it imports inside a function): why that is not at the top.
FUNCTION_IMPORTS: dict[tuple[str, str], str] = {
    ("cli_dashboard", "dashboard.process"): "tornado, for one command of many",
    ("nbray", "notebook"): "IPython is imported when a notebook loads the extension, never by a script's `import nbray`",
    ("connection", "engines.connecting"): "an engine brings zmq and numpy, and `import nbray` is in every notebook's first cell",
    (
        "notebook.cards",
        "planning",
    ): "a plan brings every machine and the simulator; loading the extension is in every notebook's first cell",
    ("environments.packing", "environments.ignoring"): "pathspec, for who packs a directory: every driver and worker imports this",
    ("widgets.picture", "cards.widget"): "anywidget is wanted where a picture is shown in a kernel, and may be missing",
    ("store.arena", "store.views"): "views need numpy: 25 MB that a node daemon does without",
}

#: (importer, imported), a module or a package each: an import against the layers, and why it stands.
UPWARD_IMPORTS: dict[tuple[str, str], str] = {
    ("node", "worker.boot"): "a record: what a node hands to a newborn worker",
}

LONGEST_MODULE = 600
LONGEST_FUNCTION = 60
#: Longer than that, and why.
LONG_MODULES: dict[str, str] = {
    "wire.messages": "declarations only: one file with every message is what makes the protocol readable",
}

#: Wall clocks are for people to read; a timeout measured with one breaks when somebody sets the clock.
WALL_CLOCKS: dict[str, str] = {
    "trace": "records carry the wall clock so that machines' records can be laid side by side",
    "environments.cache": "how old a file is is told by the clock of its file system",
    "notebook.remote_cell": "says when a cell ran, for people; how long it took is measured with perf_counter",
}


class Import(NamedTuple):
    """One `import` of something of nbray, or of anything else, as it happens at run time."""

    module: str
    line: int
    inside_function: bool


class Module(NamedTuple):
    name: str  #: dotted, without the leading `nbray.`; `nbray` itself is "nbray"
    path: Path
    source: str
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        source = path.read_text(encoding="utf-8")
        found.append(Module(".".join(parts) or "nbray", path, source, ast.parse(source, str(path))))
    return tuple(found)


def each_module() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_of(module: Module) -> list[Import]:
    """Every import that runs, with where it stands. What only a type checker sees is left out."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.orelse:
                visit(child, inside)
            return
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found.extend(Import(name, node.lineno, inside) for name in names if name != "nbray" or reads_more_than_version(module))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = list(module.path.relative_to(ROOT).parent.parts)
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            # The package's own version is there before any of its modules runs, and belongs to no layer.
            names = [alias.name for alias in node.names if (base, alias.name) != ("nbray", "__version__")]
            found.extend(Import(target_of(base, name), node.lineno, inside) for name in names)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(module.tree, False)
    return found


def reads_more_than_version(module: Module) -> bool:
    """Whether a module that says `import nbray` uses anything of it but `nbray.__version__`."""
    used = {
        node.attr
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nbray"
    }
    return used != {"__version__"}


def target_of(base: str, name: str) -> str:
    """What `from base import name` imports: the module `base.name` where that is one, else `base`."""
    if base.split(".", maxsplit=1)[0] != "nbray":
        return base
    path = ROOT.joinpath(*base.split("."), name)
    return f"{base}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else base


def ours(module: Module) -> list[Import]:
    """Imports of nbray's own modules, named without the leading `nbray.`."""
    return [
        Import(each.module.removeprefix("nbray."), each.line, each.inside_function)
        for each in imports_of(module)
        if each.module.split(".")[0] == "nbray"
    ]


def part(name: str) -> str:
    """The module or package of nbray that a dotted name belongs to."""
    return name.split(".", maxsplit=1)[0]


def layer(name: str) -> int:
    """A module named in LAYERS is in that layer; else it is where its package is."""
    for key in (name, part(name)):
        for number, names in enumerate(LAYERS):
            if key in names:
                return number
    raise AssertionError(f"nbray/{part(name)} is in no layer; add it to LAYERS and to docs/architecture.md")


def excused(module: Module, imported: str) -> bool:
    """Whether an import against the layers has a reason in UPWARD_IMPORTS."""
    return any(
        (importer, name) in UPWARD_IMPORTS for importer in (module.name, part(module.name)) for name in (imported, part(imported))
    )


def matches(name: str, patterns: list[str]) -> bool:
    return any(name == each or (each.endswith(".*") and name.startswith(each[:-1])) for each in patterns)


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@each_module()
def test_imports_point_one_way(module: Module) -> None:
    upward = [
        f"line {each.line}: {each.module}"
        for each in ours(module)
        if layer(each.module) > layer(module.name)
        and not excused(module, each.module)
        and (module.name, part(each.module)) not in FUNCTION_IMPORTS
    ]
    assert not upward, f"{module.path.relative_to(ROOT)} imports from a layer above its own: {', '.join(upward)}"


@each_module()
def test_roles_do_not_import_one_another(module: Module) -> None:
    if part(module.name) not in ROLES:
        return
    others = [
        f"line {each.line}: {each.module}"
        for each in ours(module)
        if part(each.module) in ROLES - {part(module.name)} and not excused(module, each.module)
    ]
    assert not others, f"{module.path.relative_to(ROOT)} imports another role: {', '.join(others)}; roles meet in wire/messages.py"


def test_imports_have_no_cycle() -> None:
    known = {module.name for module in modules()}
    edges = {
        module.name: {each.module for each in ours(module) if not each.inside_function and each.module in known - {module.name}}
        for module in modules()
    }
    # `import nbray.x` runs nbray/__init__.py, which imports most of the package: that edge is everybody's, and harmless.
    for targets in edges.values():
        targets.discard("nbray")
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        assert name not in path, f"a cycle of imports: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(edges[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in sorted(edges):
        walk(name, [])


@each_module()
def test_machines_import_nothing_that_acts(module: Module) -> None:
    if not matches(module.name, PURE):
        return
    allowed = IMPURE_ALLOWED.get(module.name, set())
    acts = [
        f"line {each.line}: {each.module}" for each in imports_of(module) if each.module.split(".")[0] in IMPURE_IMPORTS - allowed
    ]
    assert not acts, f"{module.path.relative_to(ROOT)} decides, so it must not be able to act: {', '.join(acts)}"


def test_what_machines_lean_on_does_not_act_either() -> None:
    """A machine split in two stays a machine: what a pure module imports of nbray is held to the same rule."""
    by_name = {module.name: module for module in modules()}
    waiting = [module.name for module in modules() if matches(module.name, PURE)]
    seen = set(waiting)
    acts = []
    while waiting:
        module = by_name[waiting.pop()]
        allowed = IMPURE_ALLOWED.get(module.name, set())
        acts += [
            f"{module.name}: {each.module}" for each in imports_of(module) if each.module.split(".")[0] in IMPURE_IMPORTS - allowed
        ]
        for each in ours(module):
            if each.module in by_name and each.module not in seen:
                seen.add(each.module)
                waiting.append(each.module)
    assert not acts, f"imported by machines, and able to act: {', '.join(acts)}"


def test_every_pure_module_named_in_the_architecture_exists_or_is_a_package() -> None:
    names = {module.name for module in modules()}
    missing = [each for each in PURE if not any(matches(name, [each]) for name in names)]
    assert not missing, f"PURE names modules that do not exist: {missing}"


@each_module()
def test_modules_and_functions_stay_short(module: Module) -> None:
    count = module.source.count("\n")
    assert count <= LONGEST_MODULE or module.name in LONG_MODULES, (
        f"{module.path.relative_to(ROOT)} has {count} lines; look for the second noun hiding inside"
    )
    long = [
        f"{each.name} has {(each.end_lineno or 0) - each.lineno + 1} lines (line {each.lineno})"
        for each in functions_of(module.tree)
        if (each.end_lineno or 0) - each.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long, f"{module.path.relative_to(ROOT)}: {'; '.join(long)}"


@each_module()
def test_nbray_is_imported_at_the_top_of_modules(module: Module) -> None:
    hidden = [
        f"line {each.line}: {each.module}"
        for each in ours(module)
        if each.inside_function
        and (module.name, each.module) not in FUNCTION_IMPORTS
        and (module.name, part(each.module)) not in FUNCTION_IMPORTS
    ]
    assert not hidden, (
        f"{module.path.relative_to(ROOT)} imports nbray inside a function: {', '.join(hidden)}. Move it to the top, or add it to "
        "FUNCTION_IMPORTS with its reason"
    )


@pytest.mark.parametrize("entry", [*FUNCTION_IMPORTS, *UPWARD_IMPORTS], ids="-".join)
def test_allowed_exceptions_are_still_in_use(entry: tuple[str, str]) -> None:
    importer, imported = entry
    using = [
        module
        for module in modules()
        if importer in {module.name, part(module.name)}
        and any(imported in {each.module, part(each.module)} for each in ours(module))
    ]
    assert using, f"{importer} no longer imports {imported}: take the exception out"


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether any exception whatever would vanish here without a trace."""
    broad = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
    return broad and all(isinstance(each, ast.Pass | ast.Continue) for each in handler.body)


@each_module()
def test_no_error_is_passed_over_without_a_reason(module: Module) -> None:
    lines = module.source.splitlines()
    silent = [
        f"line {node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and swallows(node)
        and not re.search(r"# noqa: [A-Z0-9, ]+ -- .+", lines[node.lineno - 1])
    ]
    assert not silent, f"{module.path.relative_to(ROOT)} swallows whatever goes wrong: {', '.join(silent)}"


@each_module()
def test_nothing_is_left_to_do(module: Module) -> None:
    marks = [number for number, line in enumerate(module.source.splitlines(), start=1) if re.search(r"\b(TODO|FIXME|XXX)\b", line)]
    assert not marks, f"{module.path.relative_to(ROOT)} leaves something to do in lines {marks}"


def test_every_setting_says_what_it_is() -> None:
    lines = (PACKAGE / "config.py").read_text(encoding="utf-8").splitlines()
    bare = [
        node.target.id
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and "#:" not in lines[(node.end_lineno or node.lineno) - 1]
        and not lines[node.lineno - 2].startswith("#:")
    ]
    assert not bare, f"nbray/config.py: no `#:` comment says what these are: {', '.join(bare)}"


def calls_of(tree: ast.AST, *names: str) -> list[int]:
    """The lines on which any of these is called, by its dotted name."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


@each_module()
def test_timeouts_are_measured_on_a_clock_that_nobody_sets(module: Module) -> None:
    if module.name in WALL_CLOCKS:
        return
    lines = calls_of(module.tree, "time.time", "datetime.now", "datetime.datetime.now")
    assert not lines, (
        f"{module.path.relative_to(ROOT)} reads the wall clock in lines {lines}; time.monotonic(), or say why in WALL_CLOCKS"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: str(path.relative_to(ROOT / "tests"))
)
def test_tests_do_not_sleep_for_luck(path: Path) -> None:
    # A task that sleeps is work, not waiting: that is in a string or a nested function. A sleep in a `while` looks again at a
    # condition, with the test's own limit as its bound.
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = [function for function in tree.body if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")]
    lines = [line for function in own for statement in function.body for line in sleeps_for_luck(statement)]
    assert not lines, f"{path.relative_to(ROOT)} sleeps in lines {lines}; wait for a condition with a bound"


def sleeps_for_luck(node: ast.AST) -> list[int]:
    """Calls of time.sleep under `node`, leaving out `while` loops and the bodies of functions defined there."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef | ast.While):
        return []
    here = [node.lineno] if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"} else []
    return here + [line for child in ast.iter_child_nodes(node) for line in sleeps_for_luck(child)]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name while the class is made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_documents_are_in_step_with_the_code() -> None:
    generator = load_generator()
    stale = [path.name for path, wanted in generator.pages().items() if path.read_text(encoding="utf-8") != wanted]
    assert not stale, f"{stale} differ from what the code says now; run `make docs`"


def test_every_difference_from_ray_that_a_test_is_marked_with_is_a_row_of_its_page_and_the_other_way_round() -> None:
    marked = {
        call.args[0].value
        for path in (ROOT / "tests" / "conformance").glob("test_*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "differs"
        if isinstance(call.args[0], ast.Constant)
    }
    page = (ROOT / "docs" / "differences.md").read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page if line.startswith("|")]
    named = [row[4].strip(" `") for row in rows[2:] if len(row) == 5]
    assert len(named) == len(set(named)), "a name has two rows"
    assert marked == set(named)
