"""Loading and unloading in a shell. Loading starts nothing: no cluster, no thread. Unloading leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from nbray import __version__, session
from nbray.driver.joining import running_here
from nbray.exceptions import SentToBackground
from nbray.node.monitor import cpu_count, memory_limit
from nbray.notebook import display, tracebacks
from nbray.notebook.completion import make_matcher
from nbray.notebook.current import Notebook
from nbray.notebook.magics import NbrayMagics
from nbray.notebook.told import CellSyntaxError

ATTRIBUTE = "_nbray_extension"  #: of the shell: the loaded extension
OWN_ERRORS = (CellSyntaxError, SentToBackground, asyncio.CancelledError)  #: that are shown in a way of our own


class Extension:
    """What loading added to one shell, so that unloading can take exactly that away."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.notebook = Notebook(shell)
        self.magics = NbrayMagics(shell, self.notebook)
        self.matcher = make_matcher(self.notebook, self.magics)
        self._replaced: dict[tuple[str, str], Any] = {}
        self._handles_errors = False

    def load(self) -> None:
        shell = self.shell
        for kind, names in (("cell", ("remote",)), ("line", ("remote", "nbray"))):
            for name in names:
                self._replaced[kind, name] = shell.magics_manager.magics[kind].get(name)
        shell.register_magics(self.magics)
        shell.Completer.custom_matchers.append(self.matcher)
        shell.events.register("pre_run_cell", self.pre_run_cell)
        shell.events.register("post_run_cell", self.post_run_cell)
        tracebacks.install(shell)
        if not shell.custom_exceptions:  # somebody's own handler stays
            shell.set_custom_exc(OWN_ERRORS, self.show_error)
            self._handles_errors = True
        self.notebook.open()

    def unload(self) -> None:
        shell = self.shell
        self.notebook.close()
        if self._handles_errors and shell.custom_exceptions == OWN_ERRORS:
            shell.set_custom_exc((), None)
        tracebacks.remove(shell)
        shell.events.unregister("post_run_cell", self.post_run_cell)
        shell.events.unregister("pre_run_cell", self.pre_run_cell)
        if self.matcher in shell.Completer.custom_matchers:
            shell.Completer.custom_matchers.remove(self.matcher)
        for (kind, name), replaced in self._replaced.items():
            if replaced is None:
                shell.magics_manager.magics[kind].pop(name, None)
            else:
                shell.magics_manager.magics[kind][name] = replaced
        shell.magics_manager.registry.pop(type(self.magics).__name__, None)

    # -- events: an exception in one of these would be printed under every cell

    def pre_run_cell(self, info: Any) -> None:
        self.notebook.begin_cell(str(getattr(info, "raw_cell", None) or ""))

    def post_run_cell(self, result: Any) -> None:
        self.notebook.end_cell(result.error_in_exec)

    def show_error(self, shell: Any, kind: type, error: BaseException, where: Any, tb_offset: int | None = None) -> list[str]:
        """What IPython asks for the errors of OWN_ERRORS. A cell that was sent to the background says so where it ends."""
        del tb_offset  # there are no frames to leave out
        if isinstance(error, CellSyntaxError):
            return show_syntax_error(shell, error)
        if not self.notebook.was_sent(error):
            shell.showtraceback((kind, error, where), running_compiled_code=True)
        return []


def show_syntax_error(shell: Any, error: BaseException) -> list[str]:
    """A SyntaxError of a %%remote cell, as IPython shows one of an ordinary cell: the line, and no way there."""
    lines: list[str] = shell.SyntaxTB.structured_traceback(SyntaxError, error, [])
    shell._showtraceback(SyntaxError, error, lines)
    return lines


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext nbray`. A second load replaces the first."""
    unload_ipython_extension(shell)
    extension = Extension(shell)
    extension.load()
    setattr(shell, ATTRIBUTE, extension)
    extension.notebook.begin_cell()  # the loading cell itself gets no pre_run_cell
    extension.magics.subcommands._show(card(getattr(shell, "kernel", None)))


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext nbray`. The cluster, if there is one, keeps running: `nbray.shutdown()` ends it."""
    extension = getattr(shell, ATTRIBUTE, None)
    if extension is not None:
        delattr(shell, ATTRIBUTE)
        extension.unload()


def card(kernel: Any = None) -> display.Bundle:
    """The one thing that loading shows: what there is, where numbers come from, what starts when. One line as text."""
    cpus, memory = cpu_count().where, memory_limit().where
    address = os.environ.get("NBRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if session.engine is not None:
        attached = f"attached to {session.engine.description().get('address')}"
    elif address:
        attached = f"attaches to {address} on first use"
    elif running_here() is not None:
        attached = "attaches on first use to the cluster that runs here (nbray.init(num_cpus=...) starts one of its own)"
    else:
        attached = "none yet: starts on first use"
    parts = {"cluster": attached, "CPUs": cpus, "memory": memory, "help": "%%remote?"}
    lacks = ""
    if kernel is not None and not getattr(kernel, "_supports_kernel_subshells", False):
        lacks = "this kernel has no subshells: the buttons of a card wait for the cell, use the stop button"
        parts["note"] = lacks
    bundle = display.facts(f"nbray {__version__}", parts)
    bundle["text/plain"] = f"nbray {__version__} · {attached} · {cpus} · {memory} · %%remote?" + (f" · {lacks}" if lacks else "")
    return bundle
