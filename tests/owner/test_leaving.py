"""A cell that is sent to the background: which wait ends, and which do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from nbray.exceptions import SentToBackground
from nbray.owner.leaving import Leaving
from nbray.owner.waiting import Waiter

BOUND_S = 30.0


@pytest.fixture
def leaving() -> Leaving:
    found = Leaving(threading.RLock())
    found.begin_cell("cell")
    return found


def elsewhere(function: Callable[[], object]) -> object:
    """What `function` gives in another thread."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(BOUND_S)
    return results[0]


def test_the_wait_of_the_cells_code_ends_when_another_thread_asks(leaving: Leaving) -> None:
    waiter = Waiter(2, eager=False)
    leaving.begin_wait(waiter)
    assert elsewhere(lambda: leaving.ask("cell")) is True
    assert waiter.wait(BOUND_S)
    assert waiter.given_up


def test_code_that_does_not_wait_yet_is_told_at_its_next_wait(leaving: Leaving) -> None:
    assert elsewhere(lambda: leaving.ask("cell")) is False
    with pytest.raises(SentToBackground):
        leaving.begin_wait(Waiter(1, eager=True))


def test_a_wait_that_is_over_is_not_ended(leaving: Leaving) -> None:
    waiter = Waiter(1, eager=True)
    leaving.begin_wait(waiter)
    waiter.tell(failed=False)
    leaving.end_wait(waiter)
    assert leaving.ask("cell") is False
    assert not waiter.given_up


def test_what_came_before_the_question_wins(leaving: Leaving) -> None:
    waiter = Waiter(1, eager=True)
    leaving.begin_wait(waiter)
    waiter.tell(failed=False)
    assert leaving.ask("cell") is True
    assert waiter.wait(BOUND_S)
    assert not waiter.given_up


def test_other_cells_go_on_waiting(leaving: Leaving) -> None:
    assert leaving.end_cell() is None
    with pytest.raises(LookupError, match="ended already"):
        leaving.ask("cell")
    leaving.begin_cell("next")
    with pytest.raises(LookupError):
        leaving.ask("cell")
    leaving.begin_wait(Waiter(1, eager=True))
    leaving.ask("next")
    leaving.end_cell()
    leaving.begin_cell("third")
    leaving.begin_wait(Waiter(1, eager=True))


def test_other_threads_and_other_asyncio_tasks_go_on_waiting(leaving: Leaving) -> None:
    leaving.ask("cell")
    assert elsewhere(lambda: leaving.begin_wait(Waiter(1, eager=True))) is None

    async def wait() -> None:
        leaving.begin_wait(Waiter(1, eager=True))

    asyncio.run(wait())


def test_what_an_asked_cell_awaited_is_known_at_its_end(leaving: Leaving) -> None:
    leaving.awaited("before it was asked: somebody else's")
    leaving.ask("cell")
    leaving.awaited("one")
    assert leaving.end_cell() == ["one"]
