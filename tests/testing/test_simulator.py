"""The simulator finds nothing wrong in hundreds of histories; it repeats itself; and it sees what is broken on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from nbray.owner.calls import CallTable
from nbray.owner.leases import LeaseTable
from nbray.owner.objects import ObjectTable
from nbray.owner.records import OwnedTask
from nbray.owner.tasks import TaskTable
from nbray.store.room import Room
from nbray.testing import ActorProgram, Fault, FaultPlan, Program, Simulation, Violation, simulate
from nbray.testing.process import Failed, Process
from nbray.wire import messages as m
from nbray.worker.state import WorkerState

SEEDS, CHUNK = 300, 25
#: A breakage that is not seen in so many runs would not be seen by the suite either.
SEEN_WITHIN = 500


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_history_breaks_a_promise(start: int) -> None:
    for seed in range(start, start + CHUNK):
        simulate(seed)


def test_the_same_seed_gives_the_same_history() -> None:
    for seed in range(12):
        assert simulate(seed).network.digest == simulate(seed).network.digest
    assert simulate(1).network.digest != simulate(2).network.digest


def test_a_seed_means_the_same_in_another_process() -> None:
    """Sets of ids have another order there: nothing may depend on it."""
    code = "from nbray.testing import simulate; print([simulate(seed).network.digest for seed in range(25)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2", "3")
    }
    assert len(said) == 1


# ------------------------------------------------------------------------------------------ what a user writes


def test_eight_half_second_tasks_on_four_cpus_take_one_second() -> None:
    def script(driver: Process) -> Iterator[Any]:
        refs = [driver.submit(Program(number=i, duration_s=0.5)) for i in range(8)]
        values = yield from driver.get(refs)
        assert [value.number for value in values] == list(range(8))
        took.append(driver.clock.now - begun)

    took: list[float] = []
    simulation = Simulation(1, nodes=2, cpus=2)
    begun = simulation.clock.now
    simulation.run(script)
    assert 1.0 < took[0] < 1.2


def test_a_recursion_deeper_than_the_cpus_ends_because_whoever_waits_lends_its_cpu() -> None:
    program = Program(number=1)
    for _ in range(20):
        program = Program(number=1, children=[program])

    def script(driver: Process) -> Iterator[Any]:
        ref = driver.submit(program)
        assert (yield from driver.get([ref]))[0].number == 21
        driver.drop(ref)

    Simulation(2, cpus=1).run(script)


def test_a_task_that_ends_its_process_is_run_again_and_one_without_retries_fails() -> None:
    def script(driver: Process) -> Iterator[Any]:
        again, once = driver.submit(Program(number=5, crashes=2, retries=2)), driver.submit(Program(crashes=1, retries=0))
        assert (yield from driver.get([again]))[0].number == 5
        with pytest.raises(Failed) as failed:
            yield from driver.get([once])
        assert failed.value.failure.kind == "WorkerCrashedError"
        driver.drop(again, once)

    Simulation(3).run(script)


def test_an_actor_keeps_the_order_of_its_callers_across_a_restart() -> None:
    def script(driver: Process) -> Iterator[Any]:
        actor = driver.create_actor(ActorProgram(max_restarts=1))
        refs = [driver.call(actor, Program(number=i, retries=1, crashes=int(i == 3))) for i in range(8)]
        assert [each.number for each in (yield from driver.get(refs))] == list(range(8))
        driver.drop(actor, *refs)

    Simulation(4).run(script)  # the books check the order


def test_a_stored_result_is_made_again_when_the_node_that_had_it_crashes() -> None:
    def script(driver: Process) -> Iterator[Any]:
        ref = driver.submit(Program(number=7, stored_bytes=800, cpus=2.0, duration_s=0.2, retries=1))
        blocker = driver.submit(Program(duration_s=1.0, cpus=2.0))
        yield 5.0
        assert (yield from driver.get([ref]))[0].number == 7
        driver.drop(ref, blocker)

    plan = FaultPlan([Fault("crash node", 2.0)])
    for seed in range(4):
        Simulation(seed, nodes=2, cpus=2, plan=plan).run(script)


def test_a_blackout_of_five_seconds_costs_nothing() -> None:
    def script(driver: Process) -> Iterator[Any]:
        refs = [driver.submit(Program(number=i, duration_s=0.4, retries=0)) for i in range(12)]
        assert [each.number for each in (yield from driver.get(refs))] == list(range(12))
        driver.drop(*refs)

    for seed in range(5):
        plan = FaultPlan([Fault("cut off node", 0.3, pick=0.9, lasts_s=5.0)], loss=0.1)
        Simulation(seed, nodes=3, cpus=1, plan=plan).run(script)


def test_a_violation_names_its_seed_and_tells_the_story_of_its_subject() -> None:
    def script(driver: Process) -> Iterator[Any]:
        ref = driver.submit(Program(number=1))
        driver.simulation.ledger._expected[ref.id].number = 2
        yield from driver.get([ref])

    with pytest.raises(Violation) as caught:
        Simulation(77).run(script)
    text = str(caught.value)
    assert caught.value.seed == 77
    assert "read 1 in object" in text
    assert "2 belongs there" in text
    assert "TaskDone" in text
    assert "Heartbeat" not in text


# ------------------------------------------------------------------------------------------ breakages that must be seen


@contextmanager
def broken(owner: type, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, instead)
    try:
        yield
    finally:
        setattr(owner, name, before)


def seen() -> bool:
    """Whether some history shows that a promise is broken."""
    for seed in range(SEEN_WITHIN):
        try:
            simulate(seed)
        except Violation:
            return True
    return False


def test_calls_to_an_old_epoch_that_are_taken_are_seen() -> None:
    """A call that was sent to a life of the actor that is over must be refused, not run by what is left of it."""
    original = WorkerState._called

    def takes_any(self: WorkerState, push: m.PushCall) -> None:
        self.epoch, exiting, self.exiting = push.epoch, self.exiting, ""
        original(self, push)
        self.exiting = exiting

    def keeps_running(self: CallTable, client: Any, final: bool) -> None:
        """The calls in flight stay with the life that is over."""
        if final:
            original_lose(self, client, final)

    original_lose = CallTable._lose_running
    with broken(WorkerState, "_called", takes_any), broken(CallTable, "_lose_running", keeps_running):
        assert seen()


def test_a_late_report_that_is_taken_is_seen() -> None:
    original = TaskTable.done

    def takes_any(self: TaskTable, event: m.TaskDone, now: float) -> OwnedTask | None:
        task = self.tasks.get(event.task)
        if task is not None and task.state in {"QUEUED", "PUSHED"} and task.push.attempt != event.attempt:
            task.state = "PUSHED"
            event = msgspec.structs.replace(event, attempt=task.push.attempt)
        return original(self, event, now)

    with broken(TaskTable, "done", takes_any):
        assert seen()


def test_borrowers_that_are_not_counted_are_seen() -> None:
    with broken(ObjectTable, "pass_on", lambda self, contains, to: None):
        assert seen()


def test_bytes_that_are_reused_under_a_pin_are_seen() -> None:
    original = Room.settle

    def forgets_pins(self: Room, stored: Any) -> None:
        if stored.freed and stored.pins and not stored.holds and stored.state == "MEMORY":
            pins, stored.pins = stored.pins, 0
            original(self, stored)
            stored.pins = pins
        else:
            original(self, stored)

    with broken(Room, "settle", forgets_pins):
        assert seen()


def test_arguments_that_a_worker_forgets_to_drop_are_seen() -> None:
    def forgets(self: WorkerState, sent: Any) -> None:
        del self.tasks[sent.push.task]

    with broken(WorkerState, "_give_up", forgets):
        assert seen()


def test_a_task_that_may_run_once_and_is_sent_behind_another_is_seen() -> None:
    """Lost from there it would be tried again, for all that its owner knows it had not begun."""
    original = LeaseTable._lease_for

    def sends_it(self: LeaseTable, pool: Any, task: OwnedTask) -> Any:
        retries, task.retries = task.retries, task.retries or 1
        lease = original(self, pool, task)
        task.retries = retries
        return lease

    with broken(LeaseTable, "_lease_for", sends_it):
        assert seen()
