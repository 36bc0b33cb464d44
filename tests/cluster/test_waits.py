"""Threads that wait for objects: what they leave behind, and that a very long list hears a signal while it is gone through."""

from __future__ import annotations

import signal
import threading

import pytest

import nbray as ray
from nbray import session
from nbray.owner import runtime as module


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


def who_waits():
    with session.engine.runtime.locked():
        return dict(session.engine.runtime.waiting._waiting)


def test_a_wait_that_had_enough_waits_for_nothing_more(gate):
    opened = gate.opened.remote()
    later = [opened, identity.remote(opened)]
    now = identity.remote(1)
    ready, rest = ray.wait([*later, now], num_returns=1, timeout=60)
    assert (ready, rest) == ([now], later)
    assert not who_waits().keys() & {ref._id for ref in later}


def test_two_threads_that_wait_for_the_same_objects_both_have_them(gate):
    opened = gate.opened.remote()
    refs = [opened, identity.remote(opened)]
    found = []
    threads = [threading.Thread(target=lambda: found.append(ray.get(refs))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert ray.wait(refs, num_returns=2, timeout=0.1)[0] == []
    ray.get(gate.open.remote())
    for thread in threads:
        thread.join(60)
    assert found == [[True, True]] * 2


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
