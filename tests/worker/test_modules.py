"""Which source files a worker tells its driver of, and of which it cannot be sure what it has imported."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from nbray.wire.messages import UNSURE
from nbray.worker.modules import TICK_NS, ImportedModules


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], str]:
    """Make a module as if it had been imported, written at `written_ns`; its path."""

    def make(name: str, written_ns: int) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text("x = 1\n")
        os.utime(path, ns=(written_ns, written_ns))
        module = ModuleType(name)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, name, module)
        return str(path)

    return make


def test_a_file_is_told_once_with_its_time_and_size(imported: Callable[[str, int], str]) -> None:
    modules, now = ImportedModules(), time.time_ns()
    path = imported("told_once", now - 10**9)
    assert modules.new_files(now) == [(path, now - 10**9, 6)]
    assert modules.new_files(now) == []


@pytest.mark.parametrize("after_ns", [-TICK_NS, 0, 10**9])
def test_of_a_file_written_about_when_it_was_read_nobody_can_be_sure(imported: Callable[[str, int], str], after_ns: int) -> None:
    modules, now = ImportedModules(), time.time_ns()
    path = imported("not_sure", now + after_ns)
    assert modules.new_files(now) == [(path, UNSURE, 6)]


def test_what_is_installed_is_not_told() -> None:
    modules = ImportedModules()
    modules._seen -= {"json", "pytest", "nbray"}
    assert modules.new_files(time.time_ns()) == []
