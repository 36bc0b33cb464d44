"""`%nbray scale`: how much of the cluster there is, changed while it runs. Nothing that runs is ended by fewer CPUs."""

from __future__ import annotations

from typing import Any

from IPython.core import magic_arguments
from IPython.core.error import UsageError

from nbray import session
from nbray.cards.words import count_text
from nbray.driver import scaling
from nbray.exceptions import RayError
from nbray.notebook.arguments import parse, unquoted
from nbray.util.state.watching import scale as set_cpus


@magic_arguments.magic_arguments()
@magic_arguments.argument("cpus", nargs="?", type=int, help="CPUs that a node offers from now on")
@magic_arguments.argument("--node", type=unquoted, help="the node's id, or how it begins; needed when there are several")
@magic_arguments.argument("--nodes", type=int, help="so many nodes: they are begun and ended on this machine")
@magic_arguments.argument("--num-cpus", type=float, help="CPUs of each node that is begun")
def scale(_line: str) -> None:
    """Give a node more or fewer CPUs, or the cluster more or fewer nodes on this machine."""


def run(rest: str) -> str:
    """Do what the line says; returns what was done, in words. Raises UsageError."""
    given: dict[str, Any] = parse(scale, rest)
    engine = session.engine
    if engine is None:
        raise UsageError("there is no cluster to scale yet; %nbray init starts one")
    cpus: Any = given.get("cpus")
    nodes: Any = given.get("nodes")
    if (cpus is None) == (nodes is None):
        raise UsageError("%nbray scale CPUS [--node ID] sets a node's CPUs; %nbray scale --nodes N begins or ends nodes here")
    try:
        if cpus is not None:
            told = set_cpus(engine, given.get("node") or "", int(cpus))
            return f"node {told['node'][:4]} offers {count_text(told['cpus'], 'CPU')} now; it was {told['was']:g}"
        directory = str(engine.description().get("directory") or "")
        done = scaling.scale(directory, lambda: engine.ask("nodes"), nodes, scaling.checked_cpus(given.get("num_cpus")))
        return ", ".join(done) or f"the cluster has {nodes} already"
    except (RayError, OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"%nbray scale: {error}") from None
