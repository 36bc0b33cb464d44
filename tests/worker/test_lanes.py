"""Where calls run: threads that wake each other only when they must, and loops that start and report in turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from nbray.ids import Address
from nbray.wire.messages import PushCall
from nbray.worker.lanes import Loop, Threads

ME = Address(b"node-one", b"me------")
PATIENCE_S = 20


def call(number: int, method: str = "m", attempt: int = 0) -> PushCall:
    return PushCall(number.to_bytes(16, "big"), attempt, b"a" * 16, 0, number, method, 1, b"", 0, ME, ME)


# ---------------------------------------------------------------------------------------------- threads


def test_calls_that_wait_for_each_other_all_run() -> None:
    together, ended = threading.Barrier(4), threading.Semaphore(0)

    def run(_push: PushCall) -> None:
        together.wait(PATIENCE_S)
        ended.release()

    lane = Threads(4, run)
    for number in range(8):
        lane.begin(call(number))
    for _ in range(8):
        assert ended.acquire(timeout=PATIENCE_S)


def test_a_call_that_arrives_while_all_sleep_runs() -> None:
    ended = threading.Semaphore(0)
    lane = Threads(2, lambda _push: ended.release())
    for number in range(50):
        lane.begin(call(number))
        assert ended.acquire(timeout=PATIENCE_S)


def test_no_more_threads_than_were_asked_for_and_each_call_once() -> None:
    done, seen, threads = threading.Event(), list[bytes](), set[int]()

    def run(push: PushCall) -> None:
        threads.add(threading.get_ident())
        seen.append(push.task)
        if len(seen) == 500:
            done.set()

    lane = Threads(3, run)
    for number in range(500):
        lane.begin(call(number))
    assert done.wait(PATIENCE_S)
    assert sorted(seen) == [call(number).task for number in range(500)]
    assert len(threads) <= 3


def test_one_thread_begins_calls_in_their_order() -> None:
    done, seen = threading.Event(), list[int]()

    def run(push: PushCall) -> None:
        seen.append(push.sequence)
        if len(seen) == 100:
            done.set()

    lane = Threads(1, run)
    for number in range(100):
        lane.begin(call(number))
    assert done.wait(PATIENCE_S)
    assert seen == list(range(100))


def test_a_thread_outlives_what_is_raised_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()

    def run(push: PushCall) -> None:
        if push.sequence == 0:
            raise RuntimeError("a bug of ours")
        ended.set()

    lane = Threads(1, run)
    lane.begin(call(0))
    lane.begin(call(1))
    assert ended.wait(PATIENCE_S)
    assert "a bug of ours" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- loops


class Turns:
    """A loop whose calls note whether they end in company, and when what waited was let go."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.lane = Loop("test", self._run, lambda: self.said.append("flush"), own_thread=False)
        self.ended = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.lane.serve)
        self.thread.start()

    async def _run(self, push: PushCall) -> None:
        if push.method == "long":
            await asyncio.sleep(PATIENCE_S)
        self.said.append(self.lane.ends_in_company())
        self.ended.release()

    def run(self, calls: list[PushCall]) -> list[object]:
        """Have them arrive together; what was said when the last has ended, and its turn too."""
        loop, turn = self.lane._loop, threading.Event()
        loop.call_soon_threadsafe(lambda: [self.lane.begin(push) for push in calls])
        for push in calls:
            assert push.method == "long" or self.ended.acquire(timeout=PATIENCE_S)
        loop.call_soon_threadsafe(lambda: loop.call_soon(turn.set))
        assert turn.wait(PATIENCE_S)
        return self.said

    def end(self) -> None:
        for task in list(self.lane._tasks):
            self.lane.cancel(task)
        self.lane.stop()
        self.thread.join(PATIENCE_S)
        self.lane.finish(asyncio.sleep(0))  # what was cancelled ends
        self.lane._loop.close()


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.end()


def test_calls_that_end_in_one_turn_report_together_and_the_last_lets_all_go(turns: Turns) -> None:
    assert turns.run([call(number) for number in range(4)]) == [True, True, True, False, "flush"]


def test_a_call_alone_waits_for_nobody(turns: Turns) -> None:
    assert turns.run([call(1)]) == [False]


def test_beside_another_method_a_call_reports_at_once(turns: Turns) -> None:
    assert turns.run([call(1), call(2, "long")]) == [False]


def test_beside_a_second_attempt_a_call_reports_at_once(turns: Turns) -> None:
    assert turns.run([call(1), call(2, attempt=1)])[0] is False
