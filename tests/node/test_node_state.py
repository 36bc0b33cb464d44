"""The life of a node: its workers, drivers, actors, heartbeats, and its end."""

from __future__ import annotations

import pytest

from nbray import config
from nbray.ids import HEAD, Address
from nbray.machine import IllegalTransition
from nbray.node import records as r
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, address, ident, info, shape

THE_HEAD = Address(ident("me"), HEAD)


# ---------------------------------------------------------------------------------------------------------------- workers


def test_workers_that_keep_dying_before_their_first_task_stop_the_pool_with_one_clear_error() -> None:
    story = Story(CPU=1)
    story.request(1)
    for _ in range(config.START_DEATHS):
        (start,) = story.ordered(r.StartWorker)
        story.exit(start.process, signal=None, code=1, log_tail="ImportError: libgone.so")
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.failure.kind == "WorkerCrashedError"
    assert "ImportError: libgone.so" in refused.failure.message
    assert not story.ordered(r.StartWorker)
    story.request(2)
    assert len(story.sent(m.LeaseRefused)) == 1, "nobody waits for a pool that has stopped"


def test_a_stopped_pool_tries_again_later() -> None:
    story = Story(CPU=1)
    story.request(1)
    for _ in range(config.START_DEATHS):
        story.exit(story.ordered(r.StartWorker)[0].process, signal=None, code=1)
    story.wait(config.START_DEATHS_S + 1)
    assert story.lease(2).request == 2


def test_a_crash_of_a_task_says_nothing_about_starting() -> None:
    story = Story(CPU=1)
    for number in range(2 * config.START_DEATHS):
        story.exit(story.lease(number).worker.process)
    assert not story.sent(m.LeaseRefused)


def test_idle_workers_beyond_one_per_cpu_end_after_a_while() -> None:
    story = Story(CPU=1)
    parent = story.lease(1)
    story.tell(m.WorkerBlocked(parent.worker.process))
    child = story.lease(2)
    story.give_back(child)
    story.wait(0.01)
    story.tell(m.WorkerUnblocked(parent.worker.process))
    story.give_back(parent)
    story.wait(config.WORKER_IDLE_S - 1)
    assert not story.sent(m.ExitWorker)
    story.wait(2)
    assert story.sent_to(child.worker, m.ExitWorker) == [m.ExitWorker("idle")]
    assert not story.sent(m.ExitWorker), "one per CPU stays"


def test_a_worker_that_does_not_end_when_asked_is_killed() -> None:
    story = Story(CPU=1)
    lease = story.lease(1, owner=address("a"))
    story.give_back(lease, owner=address("a"))
    story.request(2, owner=address("b"))
    assert story.sent_to(lease.worker, m.ExitWorker)
    story.wait(config.KILL_S + 0.1)
    assert r.KillWorker(lease.worker.process, 9) in story.ordered(r.KillWorker)


def test_a_worker_that_says_hello_twice_is_told_off() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    with pytest.raises(IllegalTransition):
        story.greet(lease.worker.process)


def test_a_fork_that_fails_is_told_to_actors_that_wait_for_it() -> None:
    story = Story(CPU=0)
    story.tell(m.PlaceActor(actor_spec("A"), 0))
    story.tell(r.StartFailed(story.ordered(r.StartWorker)[0].process, "fork: Resource temporarily unavailable"))
    (failed,) = story.sent_to(THE_HEAD, m.ActorFailed)
    assert "Resource temporarily unavailable" in failed.failure.message


# ---------------------------------------------------------------------------------------------------------------- drivers


def test_a_driver_s_death_ends_its_work_and_nobody_else_s() -> None:
    story = Story(CPU=3)
    story.drive("a")
    story.drive("b")
    mine, theirs = story.lease(1, owner=address("a")), story.lease(1, owner=address("b"))
    nested = story.lease(2, owner=Address(ident("me"), mine.worker.process), job=ident("a"))
    story.request(3, owner=address("a"))
    story.tell(r.ProcessLost(ident("a"), "driver", 7))
    assert {kill.process for kill in story.ordered(r.KillWorker)} == {mine.worker.process, nested.worker.process}
    assert story.sent_to(THE_HEAD, m.JobEnded) == [m.JobEnded(address("a"))]
    assert not len(story.state.leases.queue)
    story.exit(mine.worker.process)
    story.exit(nested.worker.process)
    assert story.free == {"CPU": 2}
    assert theirs.lease in story.state.leases.leases


def test_a_job_that_ended_elsewhere_ends_here_too() -> None:
    story = Story(CPU=2, head="other")
    lease = story.lease(1, owner=address("d", "other"))
    story.tell(m.JobEnded(address("d", "other")))
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]


def test_a_worker_s_death_ends_the_leases_that_it_had() -> None:
    story = Story(CPU=2)
    parent = story.lease(1)
    child = story.lease(2, owner=parent.worker, job=ident("d"))
    story.exit(parent.worker.process)
    assert story.ordered(r.KillWorker) == [r.KillWorker(child.worker.process, 9)]


def test_an_embedded_node_ends_with_its_last_driver() -> None:
    story = Story(CPU=1, embedded=True)
    story.drive("a")
    story.drive("b")
    story.tell(r.ProcessLost(ident("a"), "driver", 7))
    assert not story.ordered(r.Stop)
    story.tell(r.ProcessLost(ident("b"), "driver", 7))
    assert len(story.ordered(r.Stop)) == 1


def test_an_embedded_node_that_no_driver_ever_attaches_to_ends() -> None:
    story = Story(CPU=1, embedded=True)
    story.wait(config.EMBEDDED_GRACE_S - 1)
    assert not story.ordered(r.Stop)
    story.wait(2)
    assert len(story.ordered(r.Stop)) == 1


def test_a_node_that_was_started_to_stay_stays() -> None:
    story = Story(CPU=1)
    story.drive("a")
    story.tell(r.ProcessLost(ident("a"), "driver", 7))
    story.wait(100)
    assert not story.ordered(r.Stop)


def test_a_viewer_comes_and_goes_without_a_trace() -> None:
    story = Story(CPU=1, embedded=True)
    story.drive("a")
    story.tell(r.ProcessLost(ident("v"), "viewer", 8))
    assert not story.ordered(r.Stop)
    assert not story.sent(m.JobEnded)


def test_who_watches_a_process_hears_of_its_death_once_and_late_askers_at_once() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    for _ in range(2):
        story.tell(m.WatchProcess(lease.worker.process, address("d")))
    story.exit(lease.worker.process, signal=11)
    assert [died.death.signal for died in story.sent_to(address("d"), m.ProcessDied)] == [11]
    story.tell(m.WatchProcess(lease.worker.process, address("late")))
    assert [died.death.signal for died in story.sent_to(address("late"), m.ProcessDied)] == [11]


def test_a_process_that_never_was_here_is_dead() -> None:
    story = Story(CPU=1)
    story.tell(m.WatchProcess(ident("ghost"), address("d")))
    (died,) = story.sent_to(address("d"), m.ProcessDied)
    assert "no such process" in died.death.reason


# ----------------------------------------------------------------------------------------------------------------- actors


def started(story: Story, name: str = "A", running: dict[str, float] | None = None, epoch: int = 0) -> Address:
    """Place an actor and let it start; returns its worker's address."""
    spec = actor_spec(name, running)
    story.tell(m.PlaceActor(spec, epoch))
    story.greet_all()
    worker = next(w for w in story.state.pool.workers.values() if w.actor == (spec.actor, epoch))
    here = Address(ident("me"), worker.process)
    assert story.sent_to(here, m.StartActor) == [m.StartActor(spec, epoch)]
    story.tell(m.ActorStarted(spec.actor, epoch, here, worker.pid))
    return here


def test_an_actor_gets_a_fresh_worker_holds_its_resources_and_the_head_hears_of_it() -> None:
    story = Story(CPU=2)
    used = story.lease(1)
    story.give_back(used)
    here = started(story, running={"CPU": 1})
    assert here.process != used.worker.process
    assert story.free == {"CPU": 1}
    assert [s.worker for s in story.sent_to(THE_HEAD, m.ActorStarted)] == [here]


def test_an_actor_that_does_not_fit_any_more_goes_back_to_the_head() -> None:
    story = Story(CPU=1)
    story.lease(1)
    spec = actor_spec("A", {"CPU": 1})
    story.tell(m.PlaceActor(spec, 0))
    assert story.sent_to(THE_HEAD, m.ActorUnplaced) == [m.ActorUnplaced(spec.actor, 0, ident("me"))]


def test_an_actor_s_crash_is_told_with_how_it_died() -> None:
    story = Story(CPU=1)
    here = started(story, running={"CPU": 1})
    story.exit(here.process, signal=11)
    (lost,) = story.sent_to(THE_HEAD, m.ActorLost)
    assert (lost.death.signal, lost.intended) == (11, False)
    assert story.free == {"CPU": 1}


def test_a_killed_actor_s_end_is_intended_and_says_by_whom() -> None:
    story = Story(CPU=1)
    here = started(story)
    actor = actor_spec("A").actor
    story.tell(m.EndActor(actor, 0, True, "killed by nbray.kill"))
    assert story.ordered(r.KillWorker) == [r.KillWorker(here.process, 9)]
    story.exit(here.process)
    (lost,) = story.sent_to(THE_HEAD, m.ActorLost)
    assert (lost.intended, lost.death.reason) == (True, "killed by nbray.kill")


def test_an_actor_without_handles_is_asked_to_end_and_may_take_its_time() -> None:
    story = Story(CPU=1)
    here = started(story)
    story.tell(m.EndActor(actor_spec("A").actor, 0, False, "out of scope"))
    assert story.sent_to(here, m.ExitWorker) == [m.ExitWorker("out of scope")]
    story.wait(1000)
    assert not [kill for kill in story.ordered(r.KillWorker) if kill.process == here.process]


def test_an_actor_that_exits_on_purpose_is_not_a_crash() -> None:
    story = Story(CPU=1)
    here = started(story)
    story.tell(m.ActorExiting(actor_spec("A").actor, 0, "exit_actor"))
    story.exit(here.process, signal=None, code=0)
    assert story.sent_to(THE_HEAD, m.ActorLost)[0].intended


def test_an_actor_that_says_it_exits_and_does_not_is_killed() -> None:
    story = Story(CPU=1)
    here = started(story)
    story.tell(m.ActorExiting(actor_spec("A").actor, 0, "exit_actor"))
    story.wait(config.ACTOR_EXIT_S + 0.1)
    assert story.ordered(r.KillWorker) == [r.KillWorker(here.process, 9)]


def test_an_actor_whose_init_raised_is_reported_once() -> None:
    story = Story(CPU=1)
    here = started(story)
    failure = m.Failure("RayTaskError", message="no")
    story.tell(m.ActorFailed(actor_spec("A").actor, 0, failure))
    story.exit(here.process, signal=None, code=1)
    assert story.sent_to(THE_HEAD, m.ActorFailed) == [m.ActorFailed(actor_spec("A").actor, 0, failure)]
    assert not story.sent(m.ActorLost)


def test_an_actor_ended_before_it_had_a_worker_is_lost_on_purpose() -> None:
    story = Story(CPU=1)
    story.tell(m.PlaceActor(actor_spec("A", {"CPU": 1}), 0))
    story.tell(m.EndActor(actor_spec("A").actor, 0, True, "killed by nbray.kill"))
    assert story.sent_to(THE_HEAD, m.ActorLost)[0].intended
    assert story.free == {"CPU": 1}


def test_words_about_an_epoch_that_is_over_are_dropped() -> None:
    story = Story(CPU=1)
    here = started(story, epoch=1)
    story.tell(m.EndActor(actor_spec("A").actor, 0, True, "late"))
    story.tell(m.ActorExiting(actor_spec("A").actor, 0, "late"))
    assert not story.ordered(r.KillWorker)
    assert story.state.pool[here.process].phase is r.Phase.ACTOR


def test_an_actor_that_waits_in_get_lends_its_cpu() -> None:
    story = Story(CPU=1)
    here = started(story, running={"CPU": 1})
    story.tell(m.WorkerBlocked(here.process))
    assert story.free == {"CPU": 1}
    story.tell(m.WorkerUnblocked(here.process))
    assert story.free == {"CPU": 0}


# ----------------------------------------------------------------------------------------------------- heart, cluster, end


def test_the_node_registers_first_and_then_beats_once_a_second_when_nothing_happens() -> None:
    story = Story(CPU=1)
    assert [said.info.node for said in story.sent_to(THE_HEAD, m.RegisterNode)] == [ident("me")]
    story.greet_all()
    story.wait(10.5 * config.HEARTBEAT_S)
    assert 9 <= len(story.sent(m.Heartbeat)) <= 11


def test_a_change_is_told_soon_and_many_changes_are_told_together() -> None:
    story = Story(CPU=4)
    for number in range(4):
        story.lease(number)
    story.sent(m.Heartbeat)
    story.wait(config.HEARTBEAT_MIN_S * 1.5)
    (beat,) = story.sent(m.Heartbeat)
    assert beat.info.available == {"CPU": 0}


def test_a_heartbeat_says_what_waits_and_why() -> None:
    story = Story(CPU=1)
    story.lease(1)
    for number in (2, 3):
        story.request(number)
    story.request(4, shape(GPU=1))
    story.wait(config.HEARTBEAT_S * 1.1)
    queued = story.sent(m.Heartbeat)[-1].info.queued
    assert [(demand.amounts, demand.count) for demand in queued] == [({"CPU": 10_000}, 2), ({"GPU": 10_000}, 1)]
    assert all(demand.why for demand in queued)


def test_what_is_over_used_is_told_as_nothing_available() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.tell(m.WorkerBlocked(lease.worker.process))
    story.lease(2)
    story.tell(m.WorkerUnblocked(lease.worker.process))
    assert story.state.ground.info().available == {"CPU": 0}


def test_a_heartbeat_counts_the_actors_that_it_already_reflects() -> None:
    story = Story(CPU=2)
    started(story, running={"CPU": 1})
    assert story.state.ground.info().placements == 1


def test_a_node_s_death_is_told_to_every_process_here() -> None:
    story = Story(CPU=2)
    story.drive("d")
    story.view(info("other", CPU=1))
    lease = story.lease(1)
    story.tell(m.NodeDied(ident("other"), "silent"))
    assert story.sent_to(address("d"), m.NodeDied)
    assert story.sent_to(lease.worker, m.NodeDied)


def test_a_node_that_was_declared_dead_begins_a_new_life() -> None:
    story = Story(CPU=1, head="other")
    story.tell(m.NodeDied(ident("me"), "silent for 15 s"))
    assert [stop.rejoin for stop in story.ordered(r.Stop)] == [True]


def test_a_node_that_leaves_says_so_to_the_head() -> None:
    story = Story(CPU=1, head="other")
    story.request(1, shape(GPU=1))
    story.tell(m.DrainNode("nbray stop"))
    assert story.sent_to(Address(ident("other"), HEAD), m.NodeDied) == [m.NodeDied(ident("me"), "nbray stop")]
    assert story.sent(m.LeaseRefused)[0].failure.kind == "NodeDiedError"
    assert len(story.ordered(r.Stop)) == 1
    story.request(2)
    assert story.sent(m.LeaseRefused)[0].request == 2


def test_the_head_node_takes_the_cluster_with_it() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    story.tell(m.DrainNode("nbray stop"))
    assert story.sent_to(address("other", "other"), m.DrainNode)


def test_a_node_waits_long_for_a_head_that_is_gone_but_not_for_ever() -> None:
    story = Story(CPU=1, head="other")
    story.wait(config.HEAD_GRACE_S - 10)
    story.tell(m.HeartbeatTaken(ident("me")))
    story.wait(config.HEAD_GRACE_S - 10)
    assert not story.ordered(r.Stop)
    story.wait(20)
    assert len(story.ordered(r.Stop)) == 1


def test_what_is_no_business_of_a_node_is_told_so() -> None:
    story = Story(CPU=1)
    with pytest.raises(IllegalTransition):
        story.tell(m.ActorRejected(b"a" * 16, 1, "taken"))


def test_requests_are_refused_in_the_end_when_no_fork_ever_works() -> None:
    story = Story(CPU=1)
    story.request(1)
    for _ in range(config.START_DEATHS):
        for start in story.ordered(r.StartWorker):
            story.tell(r.StartFailed(start.process, "fork: Resource temporarily unavailable"))
    (refused,) = story.sent(m.LeaseRefused)
    assert "Resource temporarily unavailable" in refused.failure.message
