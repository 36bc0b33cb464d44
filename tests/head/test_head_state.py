"""HeadState: what the scenarios do not show."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nbray.head.questions import KV_VALUE_BYTES, TRACE_BYTES
from nbray.ids import HEAD, Address
from nbray.machine import IllegalTransition, Send, Tick
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from nbray.wire.failures import error_of
from tests.head.story import Story, actor_id, address, ident, node_info, spec


@pytest.fixture
def story() -> Story:
    told = Story()
    told.tell("node a CPU=4")
    told.tell("job d@a")
    return told


def sent(effects: list, kind: type) -> list:
    return [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def ask(story: Story, what: str, **arguments: Any) -> Any:
    (answer,) = sent(story.take(m.Ask(1, address("d@a"), what, arguments)), m.Answer)
    assert not answer.error, answer.error
    # What goes out must come back the same: answers hold plain values only.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer.result)) == answer.result
    return answer.result


def refusal(story: Story, what: str, **arguments: Any) -> str:
    (answer,) = sent(story.take(m.Ask(1, address("d@a"), what, arguments)), m.Answer)
    assert answer.result is None
    return answer.error


# -- nodes


def test_a_node_is_accepted_with_the_session_and_sees_the_cluster(story: Story) -> None:
    story.now += 1
    effects = story.take(m.RegisterNode(node_info("b", {"CPU": 2})))
    assert sent(effects, m.NodeAccepted) == [m.NodeAccepted(ident("b"), "session")]
    views = {
        e.to: [i.node for i in e.message.nodes] for e in effects if isinstance(e, Send) and isinstance(e.message, m.ClusterView)
    }
    assert views == {address("a"): [ident("b")], address("b"): [ident("a"), ident("b")]}


def test_registering_twice_is_registering_once(story: Story) -> None:
    story.tell("node b CPU=2")
    story.tell("node b CPU=2")
    assert [node["node_id"] for node in ask(story, "nodes")] == [ident("a").hex(), ident("b").hex()]


def test_every_heartbeat_is_acknowledged(story: Story) -> None:
    assert sent(story.take(m.Heartbeat(node_info("a", {"CPU": 4}))), m.HeartbeatTaken) == [m.HeartbeatTaken(ident("a"))]


def test_nodes_that_report_nothing_new_cause_no_new_view(story: Story) -> None:
    story.tell("wait 3 beating=a")
    effects = []
    for _ in range(5):
        story.now += 1
        effects += story.take(m.Heartbeat(node_info("a", {"CPU": 4})))
    assert sent(effects, m.ClusterView) == []


def test_changes_of_what_is_free_are_told_once_a_heartbeat(story: Story) -> None:
    story.tell("wait 3 beating=a")
    views = []
    for i in range(10):
        story.now += 0.05
        views += sent(story.take(m.Heartbeat(node_info("a", {"CPU": 4}, {"CPU": i % 4}))), m.ClusterView)
    assert len(views) <= 1
    due = story.head.next_deadline()
    assert due is not None
    story.now = due
    assert len(views + sent(story.take(Tick()), m.ClusterView)) in (1, 2)


def test_the_head_of_a_single_node_is_idle_when_nothing_happens(story: Story) -> None:
    story.tell("wait 3")
    assert story.head.next_deadline() is None


def test_the_head_never_doubts_its_own_node(story: Story) -> None:
    story.tell("node b CPU=1")
    story.tell("wait 100 beating=b")
    assert "node a alive" in story.tell("show")


def test_a_node_that_leaves_in_order_says_so_itself(story: Story) -> None:
    story.tell("node b CPU=1")
    assert story.said(story.take(m.NodeDied(ident("b"), "drained by nbray stop"))) == ["a <- NodeDied b: drained by nbray stop"]


def test_a_heartbeat_from_an_unknown_node_is_taken_as_joining(story: Story) -> None:
    effects = story.take(m.Heartbeat(node_info("b", {"CPU": 2})))
    assert sent(effects, m.NodeAccepted) == [m.NodeAccepted(ident("b"), "session")]


def test_a_dead_node_stays_dead_after_a_restart_of_the_head(story: Story) -> None:
    story.tell("node b CPU=1")
    story.tell("gone b burnt")
    story.tell("restart-head e")
    assert story.tell("beat b").startswith("b <- NodeDied b")


# -- actors


def test_a_hundred_actors_do_not_go_to_the_same_free_cpu(story: Story) -> None:
    story.tell("node b CPU=2")
    placed = []
    for i in range(100):
        actor = ident("d") + i.to_bytes(8, "big")
        one_cpu = to_amounts({"CPU": 1})
        made = spec(actor, address("d@a"), address("d@a"), placement=m.Shape(one_cpu), running=one_cpu)
        effects = story.take(m.RegisterActor(made, i))
        placed += [effect.to.node for effect in effects if isinstance(effect, Send) and isinstance(effect.message, m.PlaceActor)]
    assert sorted(placed) == [ident("a")] * 4 + [ident("b")] * 2


def test_what_the_node_already_counts_is_not_subtracted_twice(story: Story) -> None:
    story.tell("actor X d@a run.CPU=1")
    story.tell("beat a CPU=3 placements=1")
    assert "free num_cpus=3" in story.tell("show")


def test_a_report_that_was_sent_before_the_placement_does_not_free_its_cpu(story: Story) -> None:
    story.tell("actor X d@a run.CPU=1")
    story.tell("beat a CPU=4 placements=0")
    assert "free num_cpus=3" in story.tell("show")


def test_actors_go_where_their_arguments_are(story: Story) -> None:
    story.tell("node b CPU=2")
    value = m.Value(location=m.Location(ident("b"), 10**9, ident("w")))
    made = msgspec.structs.replace(
        spec(actor_id("X"), address("d@a"), address("d@a")), dependencies=[m.Dependency(b"o" * 20, address("d@a"), value)]
    )
    effects = story.take(m.RegisterActor(made, 1))
    assert [e.to for e in effects if isinstance(e, Send) and isinstance(e.message, m.PlaceActor)] == [address("b")]


def test_the_whole_specification_reaches_the_node(story: Story) -> None:
    made = spec(actor_id("X"), address("d@a"), address("d@a"), methods=b"table")
    (place,) = sent(story.take(m.RegisterActor(made, 1)), m.PlaceActor)
    assert place.spec == made


def test_get_if_exists_gives_all_of_a_hundred_racers_the_same_actor(story: Story) -> None:
    found, made = [], []
    for i in range(100):
        racer = spec(ident("d") + i.to_bytes(8, "big"), address("d@a"), address("d@a"), name="one")
        effects = story.take(m.RegisterActor(racer, i, get_if_exists=True))
        found += sent(effects, m.ActorFound)
        made += sent(effects, m.PlaceActor)
    assert len(made) == 1
    assert {answer.actor for answer in found} == {made[0].spec.actor}
    assert len(found) == 99


def test_registering_an_actor_again_tells_where_it_stands(story: Story) -> None:
    story.tell("actor X d@a name=n")
    story.tell("started X w@a")
    assert story.tell("actor X d@a name=n") == "d@a <- ActorUpdate X ALIVE epoch 0 at w@a"


def test_a_watcher_of_an_actor_that_is_not_registered_yet_waits_as_long_as_its_driver_lives(story: Story) -> None:
    assert story.tell("watch X p@a") == ""
    story.tell("wait 1000 beating=a")
    assert "p@a <- ActorUpdate X PENDING" in story.tell("actor X d@a")


def test_a_watcher_of_an_actor_that_never_comes_is_told_when_its_driver_ends(story: Story) -> None:
    story.tell("watch X p@a")
    assert "its owner has died before it was created" in story.tell("job-ended d@a")


def test_a_watcher_of_an_actor_of_nobody_known_is_told_in_the_end(story: Story) -> None:
    story.owners["X"] = "zz"
    story.tell("watch X p@a")
    assert "p@a <- ActorUpdate X DEAD" in story.tell("wait 400 beating=a")


def test_a_crash_of_a_released_actor_is_not_a_reason_to_start_it_again(story: Story) -> None:
    story.tell("actor X d@a restarts=-1")
    story.tell("started X w@a")
    story.tell("release X")
    assert "its last handle went out of scope" in story.tell("lost X w@a")


def test_actors_that_restart_for_ever_do(story: Story) -> None:
    story.tell("actor X d@a restarts=-1")
    for epoch in range(20):
        story.tell(f"started X w{epoch}@a epoch={epoch}")
        assert f"RESTARTING epoch {epoch + 1}" in story.tell(f"lost X w{epoch}@a epoch={epoch}")


def test_an_order_to_end_is_given_again_when_the_head_was_restarted_before_it_was_obeyed(story: Story) -> None:
    """Found by the machine: the order can be lost with the head, and the process would stay for ever."""
    story.tell("node b CPU=4")
    story.tell("actor X d@a at=b soft")
    story.tell("started X w@b")
    story.tell("kill X")
    story.tell("restart-head e")
    assert "b <- EndActor X epoch 0 kill: killed by nbray.kill" in story.tell("beat b")
    story.tell("lost X w@b intended")
    story.tell("restart-head f")
    assert "EndActor" not in story.tell("beat b")


def test_a_late_report_of_a_death_still_ends_what_that_process_owned(story: Story) -> None:
    """Found by the machine: the head was restarted before it heard that X had started in w."""
    story.tell("node b CPU=4")
    story.tell("actor X d@a detached at=b")
    story.tell("restart-head e")
    story.tell("node e CPU=4")
    story.tell("actor Y w@b job=d@a at=e")
    story.tell("beat b")
    assert "its owner has died" in story.tell("lost X w@b intended")


def test_an_actor_moves_to_another_node_when_its_own_dies(story: Story) -> None:
    story.tell("node b CPU=4")
    story.tell("actor X d@a restarts=1 at=b soft")
    story.tell("started X w@b")
    said = story.tell("gone b burnt")
    assert "d@a <- ActorUpdate X RESTARTING epoch 1" in said
    assert "a <- PlaceActor X epoch 1" in said


def test_the_failure_of_a_crash_carries_its_facts_and_loads_as_actor_died_error(story: Story) -> None:
    story.tell("actor X d@a name=total restarts=0")
    story.tell("started X w@a")
    death = m.Death(ident("w"), ident("a"), 4000, signal=9, oom=True, log_tail="last words", log_path="/logs/worker.log")
    (update,) = sent(story.take(m.ActorLost(actor_id("X"), 0, death, False)), m.ActorUpdate)
    error = error_of(update.failure)
    assert type(error).__name__ == "ActorDiedError"
    for part in ("its worker process has died", "SIGKILL", "memory", "pid 4000", "'total'", "last words", "/logs/worker.log"):
        assert part in str(error)
    assert (error.pid, error.signal, error.oom, error.restarts, error.actor_id) == (4000, 9, True, 0, actor_id("X").hex())


def test_the_failure_of_an_init_keeps_the_users_exception(story: Story) -> None:
    story.tell("actor X d@a")
    given = m.Failure("RayTaskError", "ValueError", "no", "nbray::Counter.__init__()\nValueError: no", b"pickled")
    (update,) = sent(story.take(m.ActorFailed(actor_id("X"), 0, given)), m.ActorUpdate)
    assert (update.failure.kind, update.failure.pickle) == ("ActorInitError", b"pickled")
    assert "an error raised in its creation task" in update.failure.message


def test_dead_actors_give_back_their_code_and_arguments(story: Story) -> None:
    story.tell("actor X d@a")
    story.tell("kill X")
    (record,) = story.head.directory.dead.values()
    assert (record.spec.class_payload, record.spec.args) == (b"", b"")


def test_the_dead_are_remembered_by_a_head_that_restarts(story: Story) -> None:
    story.tell("actor X d@a")
    story.tell("kill X")
    story.tell("restart-head e")
    assert "killed by `nbray.kill`" in story.tell("watch X p@a")


def test_a_start_on_another_node_than_the_one_chosen_is_impossible(story: Story) -> None:
    story.tell("node b CPU=1")
    story.tell("actor X d@a")
    with pytest.raises(IllegalTransition, match="placed on node"):
        story.tell("started X w@b")
    assert story.tell("started X w@a") == "d@a <- ActorUpdate X ALIVE epoch 0 at w@a"


def test_a_report_from_an_epoch_of_the_future_is_impossible(story: Story) -> None:
    story.tell("actor X d@a")
    with pytest.raises(IllegalTransition):
        story.tell("lost X w@a epoch=7")


def test_what_the_head_does_not_know_is_refused(story: Story) -> None:
    with pytest.raises(IllegalTransition):
        story.take(m.Unpin(ident("w"), []))


def test_late_words_are_counted(story: Story) -> None:
    story.tell("actor X d@a")
    story.tell("kill X")
    story.tell("lost X w@a")
    story.tell("failed X")
    story.tell("kill X")
    story.tell("job-ended d@a")
    story.tell("job-ended d@a")
    assert story.head.late == {"ActorLost": 1, "ActorFailed": 1, "KillActor": 1, "JobEnded": 1}


# -- questions


def test_listings_say_what_there_is(story: Story) -> None:
    story.tell("actor X d@a name=total namespace=lab")
    story.tell("started X w@a")
    (actor,) = ask(story, "actors")
    assert (actor["state"], actor["name"], actor["pid"], actor["job_id"]) == ("ALIVE", "total", 4000, ident("d").hex())
    assert ask(story, "named_actors", namespace="lab") == [{"name": "total", "namespace": "lab"}]
    assert ask(story, "named_actors", namespace="other") == []
    assert ask(story, "named_actors", all_namespaces=True) == [{"name": "total", "namespace": "lab"}]
    story.tell("kill X")
    assert "killed by `nbray.kill`" in ask(story, "actors")[0]["death_cause"]
    story.tell("job-ended d@a")
    assert [job["state"] for job in ask(story, "jobs")] == ["ENDED"]


def test_actors_that_wait_are_listed_as_demand_of_the_head_node(story: Story) -> None:
    story.tell("actor X d@a run.GPU=1")
    (queued,) = ask(story, "nodes")[0]["queued"]
    assert (queued["amounts"], queued["count"]) == (to_amounts({"GPU": 1}), 1)
    assert "num_gpus=1" in queued["why"]


def test_keys_and_values_are_kept_per_namespace_and_over_restarts(story: Story) -> None:
    assert ask(story, "kv_put", namespace="fun", key=b"k", value=b"v") is True
    assert ask(story, "kv_put", namespace="fun", key=b"k", value=b"w", overwrite=False) is False
    assert ask(story, "kv_put", namespace="fun", key="k2", value=b"v2") is True
    assert ask(story, "kv_get", namespace="other", key=b"k") is None
    story.tell("restart-head e")
    assert ask(story, "kv_get", namespace="fun", key=b"k") == b"v"
    assert ask(story, "kv_keys", namespace="fun", prefix=b"k") == [b"k", b"k2"]
    assert ask(story, "kv_del", namespace="fun", key=b"k") == 1
    assert ask(story, "kv_del", namespace="fun", key=b"k") == 0
    assert ask(story, "kv_del", namespace="fun", key=b"k", by_prefix=True) == 1
    story.tell("restart-head e")
    assert ask(story, "kv_keys", namespace="fun") == []


def test_questions_that_make_no_sense_are_answered_with_the_reason(story: Story) -> None:
    assert "kv_get" in refusal(story, "weather")
    assert "over the limit" in refusal(story, "kv_put", key=b"k", value=b"x" * (KV_VALUE_BYTES + 1))
    assert "bytes" in refusal(story, "kv_put", key=b"k", value="text")
    assert "over the limit" in refusal(story, "kv_put", key=b"k" * 5000, value=b"")
    assert "takes a text" in refusal(story, "kv_get", key=7)
    assert "takes a text" in refusal(story, "kv_get", namespace=[1], key=b"")


def test_the_trace_is_given_out_as_it_came(story: Story) -> None:
    story.take(m.TraceBatch(ident("w"), ident("a"), b"first"))
    story.take(m.TraceBatch(ident("w"), ident("a"), b"second"))
    assert sent(story.take(m.Ask(3, address("d@a"), "trace")), m.Answer) == [m.Answer(3, [b"first", b"second"])]


def test_the_trace_is_given_out_without_those_who_speak_for_themselves(story: Story) -> None:
    story.take(m.TraceBatch(ident("w"), ident("a"), b"first"))
    story.take(m.TraceBatch(ident("v"), ident("a"), b"second"))
    ask = m.Ask(3, address("d@a"), "trace", {"without": [ident("w")]})
    assert sent(story.take(ask), m.Answer) == [m.Answer(3, [b"second"])]


def test_the_trace_is_given_out_piece_by_piece_with_whose_job_it_is(story: Story) -> None:
    for letter, job in (("w", "d"), ("v", "e"), ("w", "d")):
        story.take(m.TraceBatch(ident(letter), ident("a"), b"12345", ident(job)))

    def since(**arguments: Any) -> Any:
        return sent(story.take(m.Ask(3, address("d@a"), "trace_since", arguments)), m.Answer)[0]

    first = {"first": 0, "next": 2, "last": 3, "batches": [[ident("d"), b"12345"], [ident("e"), b"12345"]]}
    assert since(number=0, room=11).result == first
    assert since(number=2).result == {"first": 2, "next": 3, "last": 3, "batches": [[ident("d"), b"12345"]]}
    assert since(number=0, room=1).result["next"] == 1, "one is the least"
    assert since(number=3).result["batches"] == []
    assert since(number=7).result["first"] == 0, "of another head: from the oldest on"
    assert "whole numbers" in since(number="x").error


def test_the_trace_is_bounded_and_the_oldest_goes_first(story: Story) -> None:
    for i in range(5):
        story.take(m.TraceBatch(ident("w"), ident("a"), bytes([i]) * (TRACE_BYTES // 4)))
    trace = story.head.questions.trace
    assert [batch.records[0] for batch in trace.batches] == [1, 2, 3, 4]
    assert trace.dropped == 1


def test_the_head_answers_from_its_own_mailbox(story: Story) -> None:
    story.tell("actor X d@a")
    story.tell("started X w@a")
    effects = story.take(m.RegisterActor(spec(actor_id("Y", "w"), address("w@a"), address("d@a")), 1))
    assert sent(effects, m.WatchProcess) == [m.WatchProcess(ident("w"), Address(ident("a"), HEAD))]
