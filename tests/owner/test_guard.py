"""Signals that come in the midst of a step: their handlers run, and raise, when it is whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nbray.handlers import is_of_signal
from nbray.owner.guard import InterruptGuard


class TimedOut(Exception):
    pass


def raising(_number: int, _frame: Any) -> None:
    raise TimedOut


@pytest.fixture
def soon() -> list[Callable[[], None]]:
    return []


@pytest.fixture
def guard(soon: list[Callable[[], None]]) -> Iterator[InterruptGuard]:
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)}
    made = InterruptGuard(soon.append, frozenset([finalizer.__code__]))
    yield made
    made.uninstall()
    for number, handler in before.items():
        signal.signal(number, handler)


def finalizer(number: signal.Signals) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGUSR1])
def test_a_handler_that_raises_waits_for_the_end_of_the_step(guard: InterruptGuard, number: signal.Signals) -> None:
    signal.signal(number, raising)
    guard.look()
    guard.enter()
    guard.enter()
    signal.raise_signal(number)
    guard.leave()
    with pytest.raises(TimedOut) as raised:
        guard.leave()
    assert is_of_signal(raised.value)
    guard.enter()
    guard.leave()


def test_outside_of_steps_it_raises_at_once(guard: InterruptGuard) -> None:
    signal.signal(signal.SIGALRM, raising)
    guard.enter()
    guard.leave()
    with pytest.raises(TimedOut):
        signal.raise_signal(signal.SIGALRM)


def test_a_wait_is_ended_by_a_handler_that_raises_and_outlives_one_that_does_not(guard: InterruptGuard) -> None:
    heard = []
    signal.signal(signal.SIGALRM, raising)
    signal.signal(signal.SIGUSR1, lambda *_: heard.append("in the step" if not waits else "in the wait"))
    waits = []

    def wait() -> bool:
        waits.append(True)
        signal.raise_signal(signal.SIGUSR1)
        return True

    def stuck() -> bool:
        signal.raise_signal(signal.SIGALRM)
        raise AssertionError("the time-out did not end the wait")

    guard.enter()
    signal.raise_signal(signal.SIGUSR1)
    assert guard.wait(wait)
    assert heard == ["in the step", "in the wait"]
    with pytest.raises(TimedOut):
        guard.wait(stuck)
    guard.leave()


def test_of_two_that_wait_both_are_heard_though_the_first_raises(guard: InterruptGuard) -> None:
    heard = []

    def noting(number: int, _frame: Any) -> None:
        heard.append(number)
        raise TimedOut

    signal.signal(signal.SIGALRM, noting)
    signal.signal(signal.SIGUSR1, noting)
    guard.enter()
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGALRM)
    with pytest.raises(TimedOut):
        guard.leave()
        finalizer(signal.SIGWINCH)  # a bytecode for the second to come at
    assert set(heard) == {signal.SIGALRM, signal.SIGUSR1}


def test_nested_time_outs_that_put_back_what_they_found_get_what_they_found(guard: InterruptGuard) -> None:
    heard: list[str] = []
    signal.signal(signal.SIGALRM, lambda *_: heard.append("outer"))
    guard.enter()
    guard.leave()
    found = signal.signal(signal.SIGALRM, lambda *_: heard.append("inner"))
    guard.enter()
    guard.leave()
    signal.raise_signal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, found)
    guard.enter()
    signal.raise_signal(signal.SIGALRM)
    guard.leave()
    assert heard == ["inner", "outer"]


def test_what_was_there_is_put_back_at_the_end(guard: InterruptGuard) -> None:
    signal.signal(signal.SIGUSR2, raising)
    guard.enter()
    guard.leave()
    assert signal.getsignal(signal.SIGUSR2) is not raising
    guard.uninstall()
    assert signal.getsignal(signal.SIGUSR2) is raising


def test_in_a_finalizer_nothing_is_raised_and_the_signal_comes_again(guard: InterruptGuard, soon: list[Callable[[], None]]) -> None:
    signal.signal(signal.SIGALRM, raising)
    guard.enter()
    guard.leave()
    finalizer(signal.SIGALRM)
    [again] = soon
    with pytest.raises(TimedOut):
        again()
        finalizer(signal.SIGWINCH)
