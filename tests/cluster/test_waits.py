"""Threads that wait for objects: what they leave behind, and that a very long list hears a signal while it is gone through."""

from __future__ import annotations

import signal
import threading

import pytest

import nbray as ray
from nbray import session
from nbray.owner import runtime as module
from tests.cluster.conditions import until


@ray.remote
def identity(value):
    return value


@ray.remote(max_concurrency=2)
class Gate:
    def __init__(self):
        self.event = threading.Event()

    def opened(self):
        return self.event.wait(60)

    def open(self):
        self.event.set()


@pytest.fixture
def gate():
    made = Gate.remote()
    yield made
    ray.get(made.open.remote())


def open_once_waited_for(gate, refs):
    until(lambda: who_waits().keys() >= {ref._id for ref in refs}, "all are waited for")
    gate.open.remote()


def who_waits():
    with session.engine.runtime.locked():
        return dict(session.engine.runtime.waiting._waiting)


def test_a_wait_that_had_enough_waits_for_nothing_more(gate):
    opened = gate.opened.remote()
    later = [opened, identity.remote(opened)]
    other = Gate.remote()
    now = other.opened.remote()
    opener = threading.Thread(target=open_once_waited_for, args=(other, [*later, now]))
    opener.start()
    ready, rest = ray.wait([*later, now], num_returns=1, timeout=60)
    opener.join(60)
    assert (ready, rest) == ([now], later)
    assert not who_waits().keys() & {ref._id for ref in later}


def test_two_threads_that_wait_for_the_same_objects_both_have_them(gate):
    opened = gate.opened.remote()
    refs = [opened, identity.remote(opened)]
    found = []
    threads = [threading.Thread(target=lambda: found.append(ray.get(refs))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: all(isinstance(who_waits().get(ref._id), list) for ref in refs), "both threads wait for both")
    ray.get(gate.open.remote())
    for thread in threads:
        thread.join(60)
    assert found == [[True, True]] * 2


def test_a_wait_of_a_cell_that_is_enlisted_in_pieces_is_one_wait(gate, monkeypatch):
    first = Gate.remote()
    refs = [first.opened.remote(), gate.opened.remote()]
    monkeypatch.setattr(module, "ENLISTED_AT_ONCE", 1)
    engine = session.engine
    enlist, pieces = engine.runtime._enlist, []

    def slow(*arguments):
        pieces.append(arguments[0])
        if len(pieces) == 2:  # by now nothing is left of the first piece
            first.open.remote()
            until(lambda: not who_waits().keys() & {refs[0]._id}, "the first is ready")
            gate.open.remote()
        return enlist(*arguments)

    monkeypatch.setattr(engine.runtime, "_enlist", slow)
    engine.leaving.begin_cell("a cell")
    try:
        assert ray.get(refs) == [True, True]
        assert engine.leaving.ask("a cell") is False  # nothing waits any more
    finally:
        engine.leaving.end_cell()
    assert len(pieces) == 2


@pytest.mark.parametrize("verb", ["get", "wait"])
def test_a_signal_is_heard_between_the_pieces_of_a_long_list(gate, monkeypatch, verb):
    opened = gate.opened.remote()
    refs = [opened, *(identity.remote(opened) for _ in range(29))]
    monkeypatch.setattr(module, "ENLISTED_AT_ONCE", 10)
    runtime, pieces = session.engine.runtime, []
    enlist = runtime._enlist

    def counted(*arguments):
        pieces.append(len(arguments[0]))
        if len(pieces) == 2:
            signal.raise_signal(signal.SIGINT)
        return enlist(*arguments)

    monkeypatch.setattr(runtime, "_enlist", counted)
    with pytest.raises(KeyboardInterrupt):
        ray.get(refs) if verb == "get" else ray.wait(refs, num_returns=30)
    assert pieces == [10, 10]
    assert not who_waits().keys() & {ref._id for ref in refs}
    monkeypatch.undo()
    ray.get(gate.open.remote())
    assert ray.get(refs) == [True] * 30
