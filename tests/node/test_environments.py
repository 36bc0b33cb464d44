"""Environments of a node, as sentences: made before a worker is given for them, shared, failed with a reason, let go of."""

from __future__ import annotations

import json

from nbray import config
from nbray.node import records as r
from nbray.wire import messages as m
from tests.node.story import Story, actor_spec, address, ident, shape

PIP = json.dumps({"pip": {"packages": ["x"]}})
DIRECTORY = json.dumps({"working_dir": "gcs://_ray_pkg_1.zip"})


def made(story: Story, env: str, command: str = "") -> None:
    setups = [order.setup for order in story.ordered(r.MakeEnvironment)]
    assert setups == [json.dumps(json.loads(env), separators=(",", ":"))]
    story.tell(r.EnvironmentMade(setups[0], command))


def setup(env: str) -> str:
    return json.dumps(json.loads(env), sort_keys=True, separators=(",", ":"))


def test_no_worker_is_given_before_the_environment_is_there() -> None:
    story = Story(CPU=2)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=DIRECTORY))
    assert not story.sent(m.LeaseGranted)
    made(story, DIRECTORY)
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [1]


def test_who_waits_for_an_environment_keeps_no_room_from_others() -> None:
    story = Story(CPU=1)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=DIRECTORY))
    story.request(2)
    assert [grant.request for grant in story.sent(m.LeaseGranted)] == [2]


def test_variables_alone_need_nothing_made() -> None:
    story = Story(CPU=1)
    story.drive()
    story.lease(1, shape(env=json.dumps({"env_vars": {"A": "1"}, "_generation": 2})))
    assert not story.ordered(r.MakeEnvironment)


def test_environments_that_differ_in_variables_share_what_is_made() -> None:
    story = Story(CPU=2)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=DIRECTORY))
    story.request(2, shape(env=json.dumps({**json.loads(DIRECTORY), "env_vars": {"A": "1"}})))
    made(story, DIRECTORY)
    assert sorted(grant.request for grant in story.sent(m.LeaseGranted)) == [1, 2]


def test_an_interpreter_of_its_own_gets_workers_of_its_own() -> None:
    story = Story(CPU=2)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=PIP))
    made(story, PIP, "/env/bin/python")
    assert not story.sent(m.LeaseGranted), "those that are idle were forked from the zygote"
    (start,) = story.ordered(r.StartWorker)
    assert start.command == "/env/bin/python"
    story.greet(start.process)
    (grant,) = story.sent(m.LeaseGranted)
    assert grant.worker.process == start.process


def test_a_worker_of_another_interpreter_is_given_to_nobody_else() -> None:
    story = Story(CPU=2)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=PIP))
    made(story, PIP, "/env/bin/python")
    story.tell(m.CancelLeaseRequest(1, ident("d")))
    (start,) = story.ordered(r.StartWorker)
    story.greet(start.process)
    granted = [story.lease(number).worker.process for number in (2, 3)]
    assert start.process not in granted


def test_an_environment_that_fails_fails_those_who_wait_with_the_reason_and_is_tried_again_later() -> None:
    story = Story(CPU=1)
    story.drive()
    story.request(1, shape(env=PIP))
    story.ordered(r.MakeEnvironment)
    story.tell(r.EnvironmentFailed(setup(PIP), "no such package"))
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.failure.kind == "RuntimeEnvSetupError"
    assert "no such package" in refused.failure.message
    story.request(2, shape(env=PIP))
    assert story.sent(m.LeaseRefused), "at once"
    story.wait(config.ENVIRONMENT_RETRY_S + 1)
    story.request(3, shape(env=PIP))
    assert not story.sent(m.LeaseRefused)
    assert story.ordered(r.MakeEnvironment)


def test_one_that_takes_too_long_is_given_up() -> None:
    env = json.dumps({"pip": {"packages": ["x"]}, "config": {"setup_timeout_seconds": 7}})
    story = Story(CPU=1)
    story.drive()
    story.request(1, shape(env=env))
    story.wait(6.9)
    assert not story.sent(m.LeaseRefused)
    story.wait(0.2)
    assert [order.setup for order in story.ordered(r.EndEnvironment)] == [setup(PIP)]
    (refused,) = story.sent(m.LeaseRefused)
    assert "setup_timeout_seconds=7" in refused.failure.message
    story.tell(r.EnvironmentMade(setup(PIP), ""))
    assert story.state.ground.environments.dropped == 1, "late"


def test_one_without_a_timeout_may_take_for_ever() -> None:
    env = json.dumps({"pip": {"packages": ["x"]}, "config": {"setup_timeout_seconds": -1}})
    story = Story(CPU=1)
    story.drive()
    story.request(1, shape(env=env))
    story.wait(1000)
    assert not story.sent(m.LeaseRefused)


def test_one_that_nobody_is_in_is_let_go_of() -> None:
    story = Story(CPU=1)
    story.drive()
    story.request(1, shape(env=DIRECTORY))
    made(story, DIRECTORY)
    story.greet_all()
    (grant,) = story.sent(m.LeaseGranted)
    story.wait(config.ENVIRONMENT_IDLE_S * 2)
    assert not story.ordered(r.EndEnvironment), "a worker is in it"
    story.give_back(grant, broken=True)
    story.exit(grant.worker.process)
    story.wait(config.ENVIRONMENT_IDLE_S + 1)
    assert [order.setup for order in story.ordered(r.EndEnvironment)] == [setup(DIRECTORY)]


def test_an_interpreter_that_ends_at_once_fails_its_environment_and_not_the_node() -> None:
    story = Story(CPU=1)
    story.drive()
    story.greet_all()
    story.request(1, shape(env=PIP))
    made(story, PIP, "/bin/false")
    (start,) = story.ordered(r.StartWorker)
    story.exit(start.process, None, 1, log_tail="no module named nbray")
    (refused,) = story.sent(m.LeaseRefused)
    assert refused.failure.kind == "RuntimeEnvSetupError"
    assert "no module named nbray" in refused.failure.message
    assert story.lease(2)


def test_an_interpreter_that_never_says_hello_is_given_up() -> None:
    story = Story(CPU=1)
    story.drive()
    story.greet_all()
    env = json.dumps({**json.loads(PIP), "config": {"setup_timeout_seconds": 30}})
    story.request(1, shape(env=env))
    made(story, PIP, "/bin/cat")
    (start,) = story.ordered(r.StartWorker)
    story.wait(31)
    assert r.KillWorker(start.process, r.SIGKILL) in story.ordered(r.KillWorker)
    (refused,) = story.sent(m.LeaseRefused)
    assert "has not become a worker within 30 s" in refused.failure.message
    story.exit(start.process)


def test_a_node_without_cpus_makes_nothing_ahead() -> None:
    story = Story(CPU=0)
    story.drive()
    story.tell(m.PrepareEnvironment(DIRECTORY))
    assert not story.ordered(r.MakeEnvironment)


def test_an_actor_waits_for_its_environment_and_fails_with_it() -> None:
    story = Story(CPU=1)
    story.drive()
    story.greet_all()
    spec = m.ActorSpec(**{**{f: getattr(actor_spec("a"), f) for f in m.ActorSpec.__struct_fields__}, "env": DIRECTORY})
    story.tell(m.PlaceActor(spec, 0))
    assert not story.sent(m.StartActor)
    made(story, DIRECTORY)
    assert story.sent(m.StartActor)
    other = m.ActorSpec(**{**{f: getattr(actor_spec("b"), f) for f in m.ActorSpec.__struct_fields__}, "env": PIP})
    story.tell(m.PlaceActor(other, 0))
    story.tell(r.EnvironmentFailed(setup(PIP), "no such package"))
    (failed,) = story.sent(m.ActorFailed)
    assert (failed.actor, failed.failure.kind) == (other.actor, "RuntimeEnvSetupError")


def test_a_driver_can_have_it_made_before_it_asks_for_a_worker() -> None:
    story = Story(CPU=1)
    story.drive()
    story.tell(m.PrepareEnvironment(DIRECTORY))
    assert story.ordered(r.MakeEnvironment)


def test_who_waits_longer_than_a_second_is_told_what_for() -> None:
    story = Story(CPU=1)
    story.drive()
    story.request(1, shape(env=PIP))
    story.wait(1.5)
    (told,) = story.sent_to(address("d"), m.LeaseWaiting)
    assert "pip install x" in told.why


def test_an_environment_is_given_up_when_the_last_driver_that_wanted_it_has_left() -> None:
    story = Story(CPU=1)
    one, two = story.drive("one"), story.drive("two")
    for driver in (one, two):
        story.tell(m.PrepareEnvironment(PIP, driver.process))
    story.tell(m.JobEnded(one))
    assert not story.ordered(r.EndEnvironment)
    story.tell(m.JobEnded(two))
    assert [order.setup for order in story.ordered(r.EndEnvironment)] == [setup(PIP)]


def test_a_request_that_is_withdrawn_takes_the_environment_with_it_that_nobody_else_waits_for() -> None:
    story = Story(CPU=1)
    driver = story.drive()
    story.request(1, shape(env=PIP))
    story.request(2, shape(env=PIP))
    story.tell(m.CancelLeaseRequest(1, driver.process))
    assert not story.ordered(r.EndEnvironment)
    story.tell(m.CancelLeaseRequest(2, driver.process))
    assert len(story.ordered(r.EndEnvironment)) == 1
