"""Starting a node daemon from a driver or the command line, and ending it.

starter                             daemon
  settings (JSON) --- pipe --->       reads to end of file
  waits on the other pipe <----       Started (JSON) once processes can attach; end of file: it failed
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from nbray.exceptions import NodeStartError
from nbray.node.settings import NodeSettings, Started
from nbray.node.spawn import interpreter
from nbray.wire import rundir

#: A daemon listens within half a second; a machine that swaps may take longer.
START_S = 30.0
TAIL_BYTES = 4096


class Launched(msgspec.Struct, frozen=True, dict=True):
    """A running daemon: its runtime directory (attach with `wire.lifeline.connect`) and its process."""

    directory: str
    process: Any  #: subprocess.Popen[bytes]
    node: bytes
    session: str
    port: int | None = None  #: of its gateway, if it listens


class Beginning:
    """A process of ours that has been started and has yet to say that it listens. It does that by itself; `wait` once."""

    def __init__(self, module: str, noun: str, settings: bytes) -> None:
        """Run `python -m module` with two pipes, and tell it `settings`. `noun` is what it is called in errors."""
        self._noun = noun
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            settings_r, settings_w = os.pipe()
            self._ready, ready_w = os.pipe()
            for fd in (settings_r, ready_w):
                theirs.callback(os.close, fd)
            for fd in (settings_w, self._ready):
                ours.callback(os.close, fd)
            self._said = ours.enter_context(tempfile.TemporaryFile())
            self.process = subprocess.Popen(
                [*interpreter(), "-m", module, str(settings_r), str(ready_w)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(settings_r, ready_w),
                # Ctrl-C in the driver's terminal is for the driver alone.
                start_new_session=True,
            )
            ours.pop_all()
        with open(settings_w, "wb") as file, contextlib.suppress(BrokenPipeError):
            file.write(settings)
            file.flush()

    def wait(self, timeout_s: float) -> bytes:
        """What it says once it listens. Raises NodeStartError."""
        with self._said, contextlib.ExitStack() as ends:
            ends.callback(os.close, self._ready)
            answer = _read_until(self._ready, time.monotonic() + timeout_s)
            if not answer:
                raise NodeStartError(_why(self.process, self._noun, self._said, timeout_s))
            return answer


def begin_local(
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    memory: int | None = None,
    object_store_memory: int | None = None,
    labels: Mapping[str, str] | None = None,
    root: str | None = None,
) -> Beginning:
    """Begin a cluster of one node that ends with its last driver, or soon when none comes. Memory in bytes; None: find out.
    `listening` waits for it."""
    settings = NodeSettings(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=dict(resources or {}),
        memory=memory,
        object_store_memory=object_store_memory,
        labels=dict(labels or {}),
        root=root,
    )
    return begin(settings)


def begin(settings: NodeSettings) -> Beginning:
    return Beginning("nbray.node", "node daemon", msgspec.json.encode(settings))


def listening(begun: Beginning, timeout_s: float = START_S) -> Launched:
    """The daemon, once it listens. Raises NodeStartError with the daemon's own words if it does not come up."""
    words = msgspec.json.decode(begun.wait(timeout_s), type=Started)
    return Launched(words.directory, begun.process, words.node, words.session, words.port)


def start(settings: NodeSettings, timeout_s: float = START_S) -> Launched:
    """Start a daemon with any settings and wait until it listens. Raises NodeStartError."""
    return listening(begin(settings), timeout_s)


def _read_until(fd: int, deadline: float) -> bytes:
    """Everything up to end of file; b"" if it does not come before `deadline`."""
    parts: list[bytes] = []
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(fd, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


def _why(process: subprocess.Popen[bytes], noun: str, said: Any, timeout_s: float) -> str:
    """How it failed to start; it is ended if it still tries."""
    try:
        code: int | None = process.wait(1.0)
    except subprocess.TimeoutExpired:
        code = None
        process.kill()
        process.wait()
    said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL_BYTES))
    words = said.read().decode("utf-8", "replace").strip()
    if code is None:
        what = f"did not listen within {timeout_s:g} s and was ended"
    elif code < 0:
        what = f"was killed by {signal.Signals(-code).name} before it listened"
    else:
        what = f"exited with code {code} before it listened"
    return f"the {noun} (pid {process.pid}) {what}." + (f" Its last words:\n{words}" if words else " It said nothing.")


def stop(launched: Launched, timeout_s: float = 5.0) -> None:
    """End the daemon in order, by force after `timeout_s`, and see to it that nothing is left. Idempotent.

    An embedded daemon ends by itself once the last driver has closed its lifeline; then this only waits.
    """
    process = launched.process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if os.path.exists(launched.directory):
        rundir.clean_stale(os.path.dirname(launched.directory))
