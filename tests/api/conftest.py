from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("nbray_tests_inline", Path(__file__).with_name("inline.py"))
assert _spec is not None
assert _spec.loader is not None
inline = importlib.util.module_from_spec(_spec)
sys.modules["nbray_tests_inline"] = inline
_spec.loader.exec_module(inline)


@pytest.fixture
def engine() -> Iterator[object]:
    """The process's engine, for one test: every task runs at once, in this process."""
    with inline.engine_in_use() as running:
        yield running
