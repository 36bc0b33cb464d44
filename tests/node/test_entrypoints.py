"""Submitted jobs on their node: they hold what they ask for, end when told, and nothing is started twice."""

from __future__ import annotations

import msgspec

from nbray import config
from nbray.node import records as r
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from tests.node.story import Story


def run(name: str = "j", **amounts: float) -> m.RunEntrypoint:
    return m.RunEntrypoint(name, "python x.py", to_amounts(amounts), {})


def exited(name: str = "j", code: int | None = 0, signal: int | None = None) -> r.EntrypointExited:
    return r.EntrypointExited(name, code, signal, "", "")


def test_a_job_holds_its_resources_while_it_runs() -> None:
    story = Story(CPU=2)
    story.tell(run(CPU=1.5))
    assert [start.said.submission for start in story.ordered(r.StartEntrypoint)] == ["j"]
    assert story.free["CPU"] == 0.5
    story.tell(r.EntrypointStarted("j", 4000))
    assert [begun.pid for begun in story.sent(m.EntrypointBegun)] == [4000]
    story.tell(exited(code=3))
    assert [ended.exit_code for ended in story.sent(m.EntrypointEnded)] == [3]
    assert story.free["CPU"] == 2


def test_a_job_waits_for_what_is_not_free_and_says_so_once() -> None:
    story = Story(CPU=2)
    story.drive()
    lease = story.lease(1)
    story.tell(run(CPU=2))
    story.wait(3)
    assert not story.ordered(r.StartEntrypoint)
    assert ["num_cpus=2" in waits.why for waits in story.sent(m.EntrypointWaits)] == [True]
    story.give_back(lease)
    assert len(story.ordered(r.StartEntrypoint)) == 1


def test_a_job_that_does_not_end_when_told_is_killed() -> None:
    story = Story()
    story.tell(run())
    story.tell(r.EntrypointStarted("j", 4000))
    story.tell(m.EndEntrypoint("j"))
    story.tell(m.EndEntrypoint("j"))
    assert [order.signal for order in story.ordered(r.SignalEntrypoint)] == [15]
    story.wait(config.JOB_STOP_S)
    assert [order.signal for order in story.ordered(r.SignalEntrypoint)] == [9]
    story.tell(exited(code=None, signal=9))
    assert [ended.signal for ended in story.sent(m.EntrypointEnded)] == [9]
    story.wait(10 * config.JOB_STOP_S)
    assert not story.ordered(r.SignalEntrypoint)


def test_a_job_that_is_stopped_while_it_waits_never_begins() -> None:
    story = Story(CPU=1)
    story.tell(run("first", CPU=1))
    story.tell(run(CPU=1))
    story.ordered(r.StartEntrypoint)
    story.tell(m.EndEntrypoint("j"))
    assert [(e.submission, e.exit_code) for e in story.sent(m.EntrypointEnded)] == [("j", None)]
    story.tell(exited("first"))
    assert not story.ordered(r.StartEntrypoint)


def test_a_head_that_asks_again_hears_what_was_said_and_nothing_is_started_twice() -> None:
    story = Story()
    story.tell(run())
    story.tell(r.EntrypointStarted("j", 4000))
    story.sent(m.EntrypointBegun)
    story.tell(run())
    assert len(story.sent(m.EntrypointBegun)) == 1
    story.tell(exited())
    story.sent(m.EntrypointEnded)
    story.tell(run())
    assert [ended.exit_code for ended in story.sent(m.EntrypointEnded)] == [0]
    assert len(story.ordered(r.StartEntrypoint)) == 1


def test_forgetting_a_job_takes_its_log() -> None:
    story = Story()
    story.tell(run())
    story.tell(exited())
    story.tell(m.EndEntrypoint("j", forget=True))
    assert [order.submission for order in story.ordered(r.ForgetEntrypoint)] == ["j"]


def test_the_end_of_the_node_is_how_its_jobs_ended() -> None:
    story = Story()
    story.tell(run())
    story.tell(r.EntrypointStarted("j", 4000))
    story.tell(m.DrainNode("SIGTERM"))
    story.tell(exited(code=None, signal=15))
    assert [ended.reason for ended in story.sent(m.EntrypointEnded)] == ["its node was stopped (SIGTERM)"]


# ----------------------------------------------------------------------------------------------------- environments, devices

PIP = '{"pip":{"packages":["x"]}}'


def in_pip(name: str = "j", **amounts: float) -> m.RunEntrypoint:
    return msgspec.structs.replace(run(name, **amounts), env=PIP)


def test_a_job_waits_for_its_environment_holds_nothing_meanwhile_and_runs_in_it() -> None:
    story = Story(CPU=1)
    story.tell(in_pip(CPU=1))
    assert [order.setup for order in story.ordered(r.MakeEnvironment)] == [PIP]
    assert ["being made: pip install x" in waits.why for waits in story.sent(m.EntrypointWaits)] == [True]
    assert story.free["CPU"] == 1
    story.tell(r.EnvironmentMade(PIP, "/env/bin/python"))
    assert [start.interpreter for start in story.ordered(r.StartEntrypoint)] == ["/env/bin/python"]
    assert story.free["CPU"] == 0


def test_a_job_whose_environment_cannot_be_made_ends_with_the_installers_words_in_its_log() -> None:
    story = Story()
    story.tell(in_pip())
    story.tell(r.EnvironmentFailed(PIP, "no such package: x"))
    (ended,) = story.sent(m.EntrypointEnded)
    assert ended.unmade
    assert "no such package: x" in ended.reason
    assert [(log.submission, "no such package: x" in log.text) for log in story.ordered(r.LogEntrypoint)] == [("j", True)]
    assert not story.ordered(r.StartEntrypoint)


def test_an_environment_that_only_a_stopped_job_waited_for_is_given_up_at_once() -> None:
    story = Story()
    story.tell(in_pip())
    story.tell(in_pip("k"))
    story.tell(m.EndEntrypoint("j"))
    assert not story.ordered(r.EndEnvironment)
    story.tell(m.EndEntrypoint("k"))
    assert [order.setup for order in story.ordered(r.EndEnvironment)] == [PIP]
    story.ordered(r.MakeEnvironment)
    story.tell(in_pip("l"))
    assert len(story.ordered(r.MakeEnvironment)) == 1, "it is begun anew for the next"


def test_the_environment_of_a_running_job_is_kept() -> None:
    story = Story()
    story.tell(in_pip())
    story.tell(r.EnvironmentMade(PIP, "/env/bin/python"))
    story.wait(3 * config.ENVIRONMENT_IDLE_S)
    assert not story.ordered(r.EndEnvironment)
    story.tell(exited())
    story.wait(3 * config.ENVIRONMENT_IDLE_S)
    assert len(story.ordered(r.EndEnvironment)) == 1


def test_jobs_have_devices_of_their_own() -> None:
    story = Story(CPU=1, GPU=2)
    story.tell(run("one", GPU=1))
    story.tell(run("two", GPU=1))
    story.tell(run("three", GPU=1))
    assert [start.devices for start in story.ordered(r.StartEntrypoint)] == [[0], [1]]
    story.tell(exited("one"))
    assert [start.devices for start in story.ordered(r.StartEntrypoint)] == [[0]]
