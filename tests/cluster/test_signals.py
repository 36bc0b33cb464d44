"""Time-outs by SIGALRM, as notebooks and test runners use them, at any point of thousands of calls."""

from __future__ import annotations

import random
import signal
import sys

import numpy as np
import pytest

import nbray as ray
from nbray import session
from tests.cluster.conditions import until


class TimedOut(Exception):
    pass


@pytest.fixture
def timer():
    def raising(*_):
        raise TimedOut

    before = signal.signal(signal.SIGALRM, raising)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@ray.remote
def one():
    return 1


@ray.remote
class Counter:
    def add(self, array):
        return array[:1]


def test_a_time_out_at_any_point_of_submitting_and_getting_leaves_the_books_whole(timer):
    random.seed(20)
    counter = Counter.remote()
    array = np.zeros(200_000)
    for _ in range(300):
        with pytest.raises(TimedOut):
            timer(random.random() * 0.006 + 1e-4)
            while True:
                ray.get([one.remote() for _ in range(10)])
                ray.get(counter.add.remote(ray.put(array)))
        with session.engine.runtime.locked() as state:
            state.check()
    timer(0)
    assert ray.get([one.remote() for _ in range(50)]) == [1] * 50
    del counter

    def left():
        with session.engine.runtime.locked() as state:
            return dict(state.objects.objects)

    until(lambda: not left(), lambda: f"nothing is left: {len(left())} objects are, such as {list(left().values())[:3]}")


def raised_at(place, call):
    """Run `call` with a SIGALRM at its `place`-th line of code. Whether it has as many lines."""
    lines = 0

    def trace(_frame, event, _arg):
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == place:
                signal.raise_signal(signal.SIGALRM)
        return trace

    sys.settrace(trace)
    try:
        call()
    except TimedOut:
        pass
    finally:
        sys.settrace(None)
    return lines >= place


def test_a_signal_at_any_line_of_a_call_leaves_the_counts_of_its_cell_whole(timer):
    engine = session.engine
    counter = Counter.remote()
    array = np.zeros(2)
    ray.get([one.remote(), counter.add.remote(array)])
    engine.set_default_cell("swept")
    try:
        for call in (one.remote, lambda: counter.add.remote(array), lambda: ray.get(one.remote())):
            place = 1
            while raised_at(place, call):
                place += 1
            assert place > 50
        assert ray.get([one.remote() for _ in range(50)]) == [1] * 50
        until(lambda: not engine.cell_counts("swept")["queued"], lambda: f"all to end: {engine.cell_counts('swept')}")
        with engine.runtime.locked() as state:
            state.check()
    finally:
        engine.set_default_cell("")
