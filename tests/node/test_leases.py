"""Who gets a worker, who waits and hears why, and whose lease is asked back."""

from __future__ import annotations

from nbray import config
from nbray.ids import Address
from nbray.node import records as r
from nbray.wire import messages as m
from tests.node.story import Story, address, ident, info, shape


def test_the_first_task_finds_a_worker_that_was_started_before_it_came() -> None:
    story = Story(CPU=2)
    assert len(story.ordered(r.StartWorker)) == 2
    for worker in list(story.state.pool.workers):
        story.greet(worker)
    story.request(1)
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [1]
    assert not story.ordered(r.StartWorker)


def test_no_more_is_granted_than_there_is() -> None:
    story = Story(CPU=2)
    for number in range(5):
        story.request(number)
    story.greet_all()
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [0, 1]
    assert story.free == {"CPU": 0}


def test_a_returned_lease_goes_to_who_waited_longest() -> None:
    story = Story(CPU=1)
    first = story.lease(1)
    story.request(2)
    story.request(3)
    story.give_back(first)
    assert [(g.request, g.worker) for g in story.sent(m.LeaseGranted)] == [(2, first.worker)]


def test_jobs_take_turns_however_much_one_of_them_asks_for() -> None:
    story = Story(CPU=1)
    held = story.lease(0, owner=address("a"))
    for number in range(1, 5):
        story.request(number, owner=address("a"))
    story.request(9, owner=address("b"))
    order = []
    for _ in range(3):
        story.give_back(held, owner=address("a" if not order or order[-1] != 9 else "b"))
        story.greet_all()
        held = story.sent(m.LeaseGranted)[-1]
        order.append(held.request)
    assert 9 in order[:2], f"job b waited behind all of job a: {order}"


def test_a_shape_that_does_not_fit_does_not_stop_a_smaller_one_behind_it() -> None:
    story = Story(CPU=2)
    story.lease(1)
    story.request(2, shape(CPU=2))
    story.request(3, shape(CPU=1))
    story.greet_all()
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [3]


def test_a_blocked_worker_lends_its_cpu_and_nothing_else() -> None:
    story = Story(CPU=1, memory=10)
    lease = story.lease(1, shape(CPU=1, memory=4))
    story.tell(m.WorkerBlocked(lease.worker.process))
    assert story.free == {"CPU": 1, "memory": 6}
    inner = story.lease(2)
    story.tell(m.WorkerUnblocked(lease.worker.process))
    assert story.free == {"CPU": -1, "memory": 6}, "the node may be over its CPUs until something ends"
    story.give_back(inner)
    story.give_back(lease)
    assert story.free == {"CPU": 1, "memory": 10}


def test_a_blocked_worker_that_dies_gives_back_what_it_still_held() -> None:
    story = Story(CPU=1, memory=10)
    lease = story.lease(1, shape(CPU=1, memory=4))
    story.tell(m.WorkerBlocked(lease.worker.process))
    story.exit(lease.worker.process)
    assert story.free == {"CPU": 1, "memory": 10}


def test_blocked_twice_is_blocked_once() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.tell(m.WorkerBlocked(lease.worker.process))
    story.tell(m.WorkerBlocked(lease.worker.process))
    assert story.free == {"CPU": 1}
    story.tell(m.WorkerUnblocked(lease.worker.process))
    story.tell(m.WorkerUnblocked(lease.worker.process))
    assert story.free == {"CPU": 0}


def test_a_request_that_no_node_can_hold_hears_so_at_once() -> None:
    story = Story(CPU=2)
    story.request(1, shape(CPU=1, GPU=2))
    (waiting,) = story.sent(m.LeaseWaiting)
    assert waiting.infeasible
    assert "num_gpus=2" in waiting.why
    story.wait(5)
    assert not story.sent(m.LeaseWaiting), "once is enough"


def test_a_request_that_waits_a_second_hears_why() -> None:
    story = Story(CPU=1)
    story.lease(1)
    story.request(2)
    story.wait(config.LEASE_TOLD_S - 0.01)
    assert not story.sent(m.LeaseWaiting)
    story.wait(0.02)
    (waiting,) = story.sent(m.LeaseWaiting)
    assert waiting.request == 2
    assert not waiting.infeasible
    assert "num_cpus=1" in waiting.why


def test_a_cancelled_request_is_never_granted() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.request(2)
    story.tell(m.CancelLeaseRequest(2, ident("d")))
    story.give_back(lease)
    assert not story.sent(m.LeaseGranted)


def test_a_lease_is_recalled_for_a_job_that_has_none() -> None:
    story = Story(CPU=1)
    lease = story.lease(1, owner=address("a"))
    story.request(2, owner=address("b"))
    story.wait(config.RECALL_AFTER_S / 2)
    assert not story.sent(m.LeaseRecalled), "an idle lease comes back by itself"
    story.wait(config.RECALL_AFTER_S)
    assert story.sent_to(address("a"), m.LeaseRecalled) == [m.LeaseRecalled(lease.lease, ident("me"))]
    story.wait(10)
    assert not story.sent(m.LeaseRecalled), "a lease is recalled once"


def test_a_lease_is_not_recalled_for_more_work_of_its_own_kind() -> None:
    story = Story(CPU=1)
    story.lease(1)
    story.request(2)
    story.wait(10)
    assert not story.sent(m.LeaseRecalled)


def test_a_lease_whose_return_would_free_nothing_is_not_recalled() -> None:
    story = Story(CPU=1)
    parent = story.lease(1, owner=address("a"))
    story.tell(m.WorkerBlocked(parent.worker.process))
    story.lease(2, owner=address("b"))
    story.request(3, owner=address("c"))
    story.wait(10)
    assert len(story.sent_to(address("b"), m.LeaseRecalled)) == 1
    assert not story.sent_to(address("a"), m.LeaseRecalled)


def test_a_broken_worker_is_not_used_again() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.give_back(lease, broken=True)
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]
    again = story.lease(2)
    assert again.worker != lease.worker


def test_a_spent_worker_is_asked_to_end_and_its_room_is_free_at_once() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.give_back(lease, spent=True)
    assert story.sent_to(lease.worker, m.ExitWorker)
    assert not story.ordered(r.KillWorker)
    again = story.lease(2)
    assert again.worker != lease.worker
    story.wait(config.ACTOR_EXIT_S + 0.1)
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]


def test_a_spent_worker_has_all_the_time_while_others_need_what_it_owns() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.tell(m.WorkerKeeps(lease.worker.process, True))
    story.give_back(lease, spent=True)
    story.wait(10 * config.ACTOR_EXIT_S)
    assert not story.ordered(r.KillWorker)
    story.tell(m.WorkerKeeps(lease.worker.process, False))
    story.wait(config.ACTOR_EXIT_S + 0.1)
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]


def test_a_spent_worker_ends_with_its_job() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.tell(m.WorkerKeeps(lease.worker.process, True))
    story.give_back(lease, spent=True)
    story.tell(m.JobEnded(address("d")))
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]


def test_a_lost_worker_is_told_to_the_owner_with_how_it_died() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.exit(lease.worker.process, signal=11, log_tail="Fatal Python error")
    (lost,) = story.sent_to(address("d"), m.LeaseLost)
    assert (lost.lease, lost.worker) == (lease.lease, lease.worker)
    assert (lost.death.signal, lost.death.log_tail) == (11, "Fatal Python error")
    assert story.free == {"CPU": 1}


def test_a_return_that_crosses_the_worker_s_death_is_dropped() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.exit(lease.worker.process)
    story.give_back(lease)
    assert story.free == {"CPU": 1}
    assert story.state.leases.dropped == 1


def test_a_lease_that_comes_back_from_a_worker_which_is_being_killed_frees_its_resources_once() -> None:
    story = Story(CPU=1)
    story.drive("d")
    lease = story.lease(1)
    story.tell(r.ProcessLost(ident("d"), "driver", 7))
    story.give_back(lease)
    assert story.free == {"CPU": 1}
    story.tell(m.JobEnded(address("d")))
    assert len(story.ordered(r.KillWorker)) == 1, "killed once"
    story.exit(lease.worker.process)
    assert story.free == {"CPU": 1}
    assert not story.sent(m.LeaseLost)


def test_nobody_returns_the_lease_of_another() -> None:
    story = Story(CPU=1)
    lease = story.lease(1)
    story.give_back(lease, owner=address("stranger"))
    assert story.free == {"CPU": 0}


def test_a_worker_serves_one_job_for_life() -> None:
    story = Story(CPU=1)
    lease = story.lease(1, owner=address("a"))
    story.give_back(lease, owner=address("a"))
    assert story.lease(2, owner=address("b")).worker != lease.worker


def test_a_worker_serves_one_environment_for_life() -> None:
    story = Story(CPU=1)
    lease = story.lease(1, shape(env='{"env_vars":{"A":"1"}}'))
    story.give_back(lease)
    plain = story.lease(2)
    assert plain.worker != lease.worker


def test_room_elsewhere_is_used_when_there_is_none_here() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    story.lease(1)
    story.request(2)
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(2, ident("other"))]
    assert not len(story.state.leases.queue), "the node has forgotten the request"


def test_a_burst_does_not_send_everybody_to_one_free_cpu() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    story.lease(1)
    for number in range(2, 6):
        story.request(number)
    assert len(story.sent(m.LeaseRedirected)) == 1


def test_a_request_is_redirected_once() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=8))
    story.lease(1)
    story.request(2, hops=1)
    assert not story.sent(m.LeaseRedirected)


def test_a_waiting_request_moves_when_a_node_joins_that_can_hold_it() -> None:
    story = Story(CPU=1)
    story.request(1, shape(GPU=1))
    assert story.sent(m.LeaseWaiting)[0].infeasible
    story.view(info("gpu", CPU=1, GPU=1))
    assert story.sent(m.LeaseRedirected) == [m.LeaseRedirected(1, ident("gpu"))]


def test_a_hard_affinity_to_a_dead_node_is_refused() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    story.request(1, shape("NODE", "gone"))
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.failure.kind == "TaskUnschedulableError"
    assert "not in the cluster" in refused.failure.message


def test_a_foreign_owner_s_death_ends_its_leases_here() -> None:
    story = Story(CPU=1)
    owner = address("w", "other")
    lease = story.lease(1, owner=owner, job=ident("d"))
    assert story.sent_to(address("other", "other"), m.WatchProcess) == [m.WatchProcess(ident("w"), address("me"))]
    story.tell(m.ProcessDied(m.Death(ident("w"), ident("other"))))
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]


def test_a_dead_node_s_leases_and_requests_end_here() -> None:
    story = Story(CPU=1)
    story.view(info("other", CPU=1))
    lease = story.lease(1, owner=address("w", "other"))
    story.request(2, owner=address("w", "other"), hops=1)
    story.tell(m.NodeDied(ident("other"), "silent for 15 s"))
    assert story.ordered(r.KillWorker) == [r.KillWorker(lease.worker.process, 9)]
    assert not len(story.state.leases.queue)


def test_a_knot_of_workers_that_wait_for_each_other_is_cut_and_named() -> None:
    story = Story(CPU=1)
    limit = story.state.pool.limit
    for number in range(limit):
        story.tell(m.WorkerBlocked(story.lease(number).worker.process))
    story.request(limit)
    story.wait(1)
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.request == limit
    assert refused.failure.kind == "DeadlockError"
    assert f"all {limit} workers" in refused.failure.message
    assert "the task without a process <- the driver" in refused.failure.message


def test_a_knot_names_who_waits_for_whom() -> None:
    story = Story(CPU=1)
    owner = address("d")
    leases = []
    for number in range(story.state.pool.limit):
        leases.append(story.lease(number, owner=owner, job=ident("d")))
        owner = leases[-1].worker
        story.tell(m.WorkerBlocked(owner.process))
    story.request(1000, owner=owner, job=ident("d"))
    story.wait(1)
    (refused,) = story.sent_to(owner, m.LeaseRefused)
    chain = f"worker {leases[-1].pid} <- worker {leases[-2].pid} <- "
    assert chain in refused.failure.message
    assert f"worker {leases[0].pid} <- the driver" in refused.failure.message


def test_recursion_goes_depth_first_so_that_few_processes_wait() -> None:
    """A tree of calls, each of which makes two and waits: as many blocked workers as levels, not as calls."""
    story = Story(CPU=1)
    levels, number, most = 6, 0, 0
    depths = {address("d").process: 0}
    waits: dict[bytes, tuple[m.LeaseGranted, Address, int]] = {}  #: by worker: its lease, its owner, children to come
    pending = {0: address("d")}
    story.request(0, job=ident("d"))
    done = 0
    while pending or waits:
        story.greet_all()
        (grant,) = story.sent(m.LeaseGranted)
        owner, worker = pending.pop(grant.request), grant.worker
        depths[worker.process] = depths[owner.process] + 1
        if depths[worker.process] < levels:
            for _ in range(2):
                number += 1
                pending[number] = worker
                story.request(number, owner=worker, job=ident("d"))
            waits[worker.process] = (grant, owner, 2)
            story.wait(0.001)
            most = max(most, len(waits))
            story.tell(m.WorkerBlocked(worker.process))
            continue
        while True:  # a leaf is done, and so is every call whose last child that was
            story.give_back(grant, owner=owner)
            done += 1
            if owner.process not in waits:
                break
            waiting, its_owner, children = waits.pop(owner.process)
            if children > 1:
                waits[owner.process] = (waiting, its_owner, children - 1)
                break
            story.tell(m.WorkerUnblocked(owner.process))
            grant, owner = waiting, its_owner
    assert done == 2**levels - 1
    assert most == levels - 1


def test_a_full_house_in_which_somebody_works_is_no_knot() -> None:
    story = Story(CPU=1)
    leases = [story.lease(0)]
    for number in range(1, story.state.pool.limit):
        story.tell(m.WorkerBlocked(leases[-1].worker.process))
        leases.append(story.lease(number))
    story.request(1000)
    story.wait(5)
    assert not story.sent(m.LeaseRefused)


def test_the_newest_retriable_lease_ends_when_memory_is_short_and_one_always_stays() -> None:
    story = Story(CPU=3)
    story.lease(1)
    story.wait(1)
    newest_retriable = story.lease(2)
    story.wait(1)
    story.lease(3, retriable=False)
    story.tell(r.MemoryPressure(95 * 2**30, 100 * 2**30))
    assert story.ordered(r.KillWorker) == [r.KillWorker(newest_retriable.worker.process, 9)]
    story.exit(newest_retriable.worker.process)
    (lost,) = story.sent(m.LeaseLost)
    assert lost.death.oom
    assert "95.00 GiB of 100.00 GiB" in lost.death.reason
    story.tell(r.MemoryPressure(95 * 2**30, 100 * 2**30))
    story.exit(story.ordered(r.KillWorker)[0].process)
    story.tell(r.MemoryPressure(95 * 2**30, 100 * 2**30))
    assert not story.ordered(r.KillWorker)


def test_idle_workers_go_first_when_memory_is_short() -> None:
    story = Story(CPU=3)
    story.lease(1)
    story.lease(2)
    (idle,) = [worker.process for worker in story.state.pool.workers.values() if worker.lease is None]
    story.tell(r.MemoryPressure(95, 100))
    assert story.ordered(r.KillWorker) == [r.KillWorker(idle, 9)]
