"""What is kept of a failing task's frames, and what is not: nothing there may be large, slow or fail."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from nbray import exceptions
from nbray.wire.failures import error_of, failure_of
from nbray.wire.messages import Failure
from nbray.wire.snapshots import Frame, Value, read
from nbray.worker import snapshots
from nbray.worker.snapshots import OF_A_CELL, Album, asked, snapshot_of, taken

SCALE = 3


def raised(function: Any, *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def frames(function: Any, *args: Any) -> list[Frame]:
    return read(taken(raised(function, *args))).frames


def value(frame: Frame, name: str) -> Value:
    return next(each for each in [*frame.locals, *frame.globals] if each.name == name)


def outer(x: int) -> float:
    factor = [x, SCALE]
    return inner(factor)


def inner(numbers: list[int]) -> float:
    return numbers[0] / 0


def test_frames_come_outermost_first_with_their_locals_their_globals_and_their_source() -> None:
    found = frames(outer, 5)
    assert [frame.function for frame in found] == ["raised", "outer", "inner"]
    assert pickle.loads(value(found[1], "factor").pickle) == [5, 3]
    assert pickle.loads(value(found[1], "SCALE").pickle) == 3
    last = found[2]
    assert last.lines[last.line - last.first] == "    return numbers[0] / 0"


def test_what_does_not_pickle_is_its_repr_with_the_reason() -> None:
    def locked() -> None:
        lock = threading.Lock()
        raise ValueError(lock)

    kept = value(frames(locked)[-1], "lock")
    assert not kept.pickle
    assert kept.text.startswith("<unlocked _thread.lock")
    assert "does not pickle" in kept.why


def test_a_large_array_is_its_repr_and_its_shape_and_is_never_copied() -> None:
    def large() -> None:
        array = np.broadcast_to(np.float32(7), (2**40,))  # a copy would be four terabytes
        raise ValueError(len(array))

    kept = value(frames(large)[-1], "array")
    assert not kept.pickle
    assert kept.facts == {"shape": "(1099511627776,)", "dtype": "float32", "len": "1099511627776"}
    assert "larger" in kept.why


def test_everything_together_stays_within_its_bound() -> None:
    def many(depth: int, block: bytes) -> None:
        a, b, c = block + b"a", block + b"b", block + b"c"
        if depth:
            many(depth - 1, block)
        raise ValueError(a, b, c)

    found = read(taken(raised(many, 60, bytes(15_000))))
    assert len(found.frames) == snapshots.FRAMES
    assert found.left_out == 62 - snapshots.FRAMES
    sizes = [sum(len(each.pickle) for each in [*frame.locals, *frame.globals]) for frame in found.frames]
    assert max(sizes) <= snapshots.FRAME_BYTES
    assert sum(sizes) <= snapshots.ALL_BYTES
    assert sizes[-1] > 0, "the frame that raised chooses first"
    assert sizes[0] < 1000, "and those far out get what is left"


def test_a_value_that_takes_for_ever_is_left_out_and_the_others_are_there() -> None:
    never = threading.Event()

    class Slow:
        def __reduce__(self) -> Any:
            never.wait()
            raise TypeError

    def slow() -> None:
        before, stuck, after = 1, Slow(), 2
        raise ValueError(before, stuck, after)

    last = frames(slow)[-1]
    never.set()
    assert "took too long" in value(last, "stuck").why
    assert pickle.loads(value(last, "before").pickle) == 1
    assert pickle.loads(value(last, "after").pickle) == 2


def test_a_repr_that_raises_harms_nothing() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise SystemExit(3)

        def __reduce__(self) -> Any:
            raise RuntimeError("no")

    def rude() -> None:
        it = Rude()
        raise ValueError(id(it))

    assert frames(rude)[-1].function == "rude"


def test_it_is_taken_where_a_frame_of_ours_or_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(outer, 1)
    assert not asked(error)
    assert snapshot_of(error) == b""
    monkeypatch.setenv("NBRAY_ON_ERROR", "snapshot")
    assert asked(error)
    monkeypatch.delenv("NBRAY_ON_ERROR")
    code = compile("def run(call):\n    _nbray_snapshot = True\n    call(1)", exceptions.PACKAGE_DIRECTORY + "x.py", "exec")
    space: dict[str, Any] = {}
    exec(code, space)
    assert asked(raised(space["run"], outer))


def test_of_a_cells_plain_tasks_the_first_failures_are_taken_and_of_no_cell_none() -> None:
    album, error = Album(), raised(outer, 1)
    assert album.snapshot_of(error, "") == b""
    assert [bool(album.snapshot_of(error, "cell")) for _ in range(OF_A_CELL + 2)] == [True] * OF_A_CELL + [False] * 2
    assert album.snapshot_of(error, "another cell")


def test_a_frame_of_ours_that_wants_none_is_obeyed_in_a_notebook_too() -> None:
    code = compile("def run(call):\n    _nbray_snapshot = False\n    call(1)", exceptions.PACKAGE_DIRECTORY + "x.py", "exec")
    space: dict[str, Any] = {}
    exec(code, space)
    assert Album().snapshot_of(raised(space["run"], outer), "cell") == b""


def test_it_travels_with_the_error_and_a_task_that_passes_it_on_adds_its_own_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRAY_ON_ERROR", "snapshot")
    first = raised(inner, [1])
    failure = failure_of(first, name="f", pid=1, node=b"n", task=b"t", attempt=0, snapshot=snapshot_of(first))
    error = error_of(failure)
    assert isinstance(error, ZeroDivisionError)
    again = pickle.loads(pickle.dumps(error))
    assert [frame.function for frame in read(again._snapshot).frames] == ["raised", "inner"]

    def passes_on() -> None:
        raise again

    names = [frame.function for frame in frames(passes_on)]
    assert names[-4:] == ["raised", "passes_on", "raised", "inner"]


def test_a_failure_without_one_has_none() -> None:
    error = error_of(Failure("RayTaskError", "E", "m", "t", b"", {"name": "f"}))
    assert isinstance(error, exceptions.RayTaskError)
    assert error._snapshot == b""


def test_what_is_no_snapshot_says_so() -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        read(b"nonsense")
