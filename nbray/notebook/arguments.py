"""The options of `%%remote`: what may be written, what it means when it is not, and what to say about a mistake.

Options are groups of decorators in IPython's `magic_arguments` style, so that `%%remote?` documents them and `%nbray config`
takes the same ones. Nothing given means None, which means: what `%nbray config` set, else the default in `DEFAULTS`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, parse_argstring
from IPython.utils._process_common import arg_split

from nbray.notebook.cards import APPEARS_AFTER_S

UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class CellOptions:
    """One cell's options, defaults filled in. Sizes in bytes, times in seconds; None means automatic or unlimited."""

    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    refs: bool = False
    max_fetch: int = 64 * 10**6
    each: tuple[str, str] | None = None  #: name, expression
    chunk: int | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    resources: dict[str, float] | None = None
    env: dict[str, str] | None = None
    pip: tuple[str, ...] | None = None
    on: str | None = None
    background: bool = False
    handle: str | None = None
    timeout: float | None = None
    retries: int = 0
    on_interrupt: str = "cancel"
    on_error: str = "snapshot"
    stream: bool = True
    group: str = "live"
    max_output: int = 10**6
    view: str = "card"
    progress_after: float = APPEARS_AFTER_S
    profile: str = "none"
    name: str | None = None
    tag: str | None = None
    dry_run: bool = False


DEFAULTS = CellOptions()
#: Options that name one cell's own things: a default for them would be a mistake.
NOT_CONFIGURABLE = frozenset({"inputs", "outputs", "each", "handle", "dry_run", "name"})


# -------------------------------------------------------------------------------------------------- what a word means


def unquoted(text: str) -> str:
    """IPython leaves the quotes around an argument in place."""
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text


def _type(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of one word; its ValueError becomes the text of the usage error."""

    def typed(text: str) -> Any:
        try:
            return read(unquoted(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def read_names(text: str) -> tuple[str, ...]:
    """`a,b` -> names. Raises ValueError for what is not a name."""
    names = tuple(name for name in re.split(r"[,\s]+", text) if name)
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{name!r} is not the name of a variable; give names separated by commas, as in a,b")
    return names


def read_size(text: str) -> int:
    """`64MB`, `1.5 GiB`, `200` (bytes) -> bytes."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 64MB, 2GiB or 1000")
    base = 1024 ** "bkmgt".index(match[2] or "b") if match[3] else UNITS[match[2]]
    return int(float(match[1]) * base)


def read_seconds(text: str) -> float:
    """`30`, `1.5s`, `2m`, `1h` -> seconds."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a time; write for example 30, 1.5s or 2m")
    return float(match[1]) * SECONDS[match[2]]


def read_delay(text: str) -> float:
    """A time that may be nothing."""
    return 0.0 if re.fullmatch(r"0+(\.0*)?\s*[smh]?", text.strip().lower()) else read_seconds(text)


def read_each(text: str) -> tuple[str, str]:
    """`seed=range(100)` -> the name and the expression."""
    name, equals, expression = text.partition("=")
    if not equals or not name.strip().isidentifier() or keyword.iskeyword(name.strip()):
        raise ValueError(f"{text!r} is not NAME=EXPRESSION; write for example --each seed=range(100), without spaces or in quotes")
    expression = unquoted(expression.strip())
    try:
        ast.parse(expression, mode="eval")
    except SyntaxError:
        raise ValueError(f'{expression!r} is not an expression; put quotes around one with spaces: --each "x=[1, 2]"') from None
    return name.strip(), expression


def read_resources(text: str) -> dict[str, float]:
    """`tpu=1,disk=0.5` or JSON -> amounts by name."""
    try:
        found = json.loads(text) if text.startswith("{") else dict(part.split("=") for part in text.split(","))
        return {str(name): float(amount) for name, amount in found.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{text!r} is not resources; write for example tpu=1,disk=0.5") from None


def read_variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE` of an environment variable."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(
            f"{text!r} is not NAME=VALUE; write for example --env OMP_NUM_THREADS=4, and quotes around one with spaces"
        )
    return name, unquoted(value)


def read_name(text: str) -> str:
    """A name to bind in the notebook."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError(f"{text!r} is not the name of a variable")
    return text


def _number(kind: type, low: float, said: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {said}") from None
        if not value >= low:
            raise ValueError(f"{text!r} is not {said}")
        return value

    return _type(read)


class _Once(argparse.Action):
    """An option that a second one would silently replace."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise UsageError(
                f"{option_string} can be given once; for every pair of two ranges: "
                '--each "ij=itertools.product(range(3), range(2))" with i, j = ij in the cell'
            )
        setattr(namespace, self.dest, values)


# -------------------------------------------------------------------------------------------------- the groups


def _group(*arguments: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for each in reversed(arguments):
            function = each(function)
        return function

    return decorate


data_args = _group(
    argument(
        "-i",
        "--in",
        dest="inputs",
        metavar="NAMES",
        type=_type(read_names),
        action="append",
        help="variables to take along [default: what the cell reads before it assigns]",
    ),
    argument(
        "-o",
        "--out",
        dest="outputs",
        metavar="NAMES",
        type=_type(read_names),
        action="append",
        help="variables to bring back [default: what the cell assigns]",
    ),
    argument(
        "--refs",
        action="store_const",
        const=True,
        dest="refs",
        help="bind outputs as references and move no data; a later %%%%remote cell takes them as inputs without a copy",
    ),
    argument("--values", action="store_const", const=False, dest="refs", help="bind outputs as values [default]"),
    argument(
        "--max-fetch",
        metavar="SIZE",
        type=_type(read_size),
        help="an output larger than this stays in the cluster as a reference [default: 64MB]",
    ),
)
each_args = _group(
    argument(
        "--each",
        metavar="NAME=EXPR",
        type=_type(read_each),
        action=_Once,
        help="run the cell once per item of EXPR, in parallel; outputs become lists in the order of the items",
    ),
    argument(
        "--chunk", metavar="N", type=_number(int, 1, "a number of items from 1 up"), help="items per task [default: automatic]"
    ),
)
place_args = _group(
    argument("--num-cpus", metavar="N", type=_number(float, 0, "a number of CPUs"), help="CPUs per task [default: 1]"),
    argument("--num-gpus", metavar="N", type=_number(float, 0, "a number of GPUs"), help="GPUs per task [default: 0]"),
    argument("--memory", metavar="SIZE", type=_type(read_size), help="memory per task that must be free on its node"),
    argument("--resources", metavar="NAME=N", type=_type(read_resources), help="custom resources per task, as in tpu=1,disk=0.5"),
    argument(
        "--env",
        metavar="NAME=VALUE",
        type=_type(read_variable),
        action="append",
        help="an environment variable of the cell's tasks; may be given several times",
    ),
    argument(
        "--pip",
        metavar="PKG",
        type=_type(str),
        action="append",
        help="a requirement that is installed into an environment of the cell's tasks, once per set; may be given several times",
    ),
    argument(
        "--on",
        metavar="WHERE",
        type=_type(str),
        help="an actor (the cell runs inside it, and its variables stay there), a node's id or host, or a custom resource",
    ),
)
run_args = _group(
    argument(
        "--bg", action="store_const", const=True, dest="background", help="return a handle at once; await it or ask for .result()"
    ),
    argument("--block", action="store_const", const=False, dest="background", help="wait for the cell [default]"),
    argument(
        "--handle", metavar="NAME", type=_type(read_name), help="keep the handle under this name (%%nbray last finds it anyway)"
    ),
    argument("--timeout", metavar="S", type=_type(read_seconds), help="cancel the cell after this many seconds"),
    argument(
        "--retries",
        metavar="N",
        type=_number(int, -1, "a number of retries (-1: without end)"),
        help="run a task again when it fails; a cell may have side effects, so 0 unless asked",
    ),
    argument(
        "--on-interrupt",
        choices=["cancel", "detach"],
        help="what the stop button does to the cell's tasks [default: cancel; a second stop kills their workers]",
    ),
    argument(
        "--on-error",
        choices=["snapshot", "plain"],
        help="what a failure keeps: its frames with their variables, for %%nbray debug, or its text alone [default: snapshot]",
    ),
)
output_args = _group(
    argument("--stream", action="store_const", const=True, dest="stream", help="show what tasks print while they run [default]"),
    argument("--no-stream", action="store_const", const=False, dest="stream", help="show it when the cell ends"),
    argument(
        "--group",
        choices=["live", "worker", "order"],
        help="how prints of many tasks follow each other: as they come, by worker, or in the order of the tasks [default: live]",
    ),
    argument("--max-output", metavar="SIZE", type=_type(read_size), help="of printed text, then its head and tail [default: 1MB]"),
    argument(
        "--view",
        choices=["card", "line", "none"],
        help="what shows under the cell: a live card after 0.3 s, only the line that says how it went, or nothing [default: card]",
    ),
    argument(
        "--progress-after",
        metavar="S",
        type=_type(read_delay),
        help="show the card when the cell has run for this many seconds [default: 0.3]",
    ),
    argument(
        "--profile",
        choices=["none", "cpu", "mem"],
        help="watch the cell's tasks: a flame graph of where their CPU time goes (py-spy), or of the memory at its peak (memray); "
        "the handle has it as .profile [default: none]",
    ),
    argument("--tag", metavar="TEXT", type=_type(str), help="a label that the cell's tasks carry after their name"),
)
cell_args = _group(
    argument("--name", metavar="TEXT", type=_type(str), help="what to call the cell's tasks [default: the cell's number]"),
    argument(
        "--dry-run", action="store_const", const=True, dest="dry_run", help="list inputs with sizes and outputs; send nothing"
    ),
)


# -------------------------------------------------------------------------------------------------- parsing


def parse(magic: Any, line: str) -> dict[str, Any]:
    """What was given on `line`, by option. Raises UsageError that suggests the option that was meant."""
    try:
        given = vars(parse_argstring(magic, line))
    except ValueError as error:  # from splitting the line
        raise UsageError(f"the line {line!r} cannot be split into words: {error}") from None
    except UsageError as error:
        raise UsageError(explained(magic, line, str(error))) from None
    for repeated in ("inputs", "outputs"):
        if given.get(repeated):
            given[repeated] = tuple(dict.fromkeys(name for names in given[repeated] for name in names))
    if given.get("env"):
        given["env"] = dict(given["env"])
    if given.get("pip"):
        given["pip"] = tuple(given["pip"])
    return {name: value for name, value in given.items() if value is not None}


def options_of(given: Mapping[str, Any], configured: Mapping[str, Any]) -> CellOptions:
    """Fill in what was not given. Raises UsageError for options that contradict each other."""
    known = {field.name for field in fields(CellOptions)}
    options = replace(DEFAULTS, **{name: value for name, value in {**configured, **given}.items() if name in known})
    if options.refs and options.each and (options.chunk or 1) > 1:
        raise UsageError("--refs gives one reference per item, so it does not go with --chunk; leave --chunk out")
    if options.chunk and not options.each:
        raise UsageError("--chunk says how many items of --each go into one task; there is no --each here")
    if options.handle and options.handle in {*(options.outputs or ()), *(options.each or ())[:1]}:
        raise UsageError(f"--handle {options.handle} would be the name of two things: the handle, and a variable of the cell")
    if options.dry_run and options.background:
        raise UsageError("--dry-run sends nothing, so there is nothing for --bg to run; leave one of them out")
    return options


def option_names(magic: Any) -> list[str]:
    """Every option of `magic`, long and short."""
    return sorted(magic.parser._option_string_actions)


def explained(magic: Any, line: str, message: str) -> str:
    """`message` of the parser, with the option that was probably meant."""
    known = option_names(magic)
    for word in arg_split(line, strict=False):
        flag = word.split("=", 1)[0]
        if flag.startswith("-") and not re.fullmatch(r"-[0-9.]+", flag) and flag in message and flag not in known:
            near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5) if len(flag) > 2 else []
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"%%remote? lists the options: {' '.join(n for n in known if n[:2] == '--')}"
            )
            return f"{flag} is not an option; {hint}"
    if message.startswith("unrecognized arguments: "):
        words = message.partition(": ")[2]
        return f"{words!r} is no option and no option's value; code goes on the lines below the magic"
    return message
