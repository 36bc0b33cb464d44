"""Submitted jobs as the head keeps them: their states, who is told, and what a restart leaves of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nbray.ids import Address
from nbray.machine import Effect, Send, Tick
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m
from nbray.wire.environment import holder_of
from tests.head.story import Story, ident, node_info

ASKER = Address(ident("a"), ident("cli"))


@pytest.fixture
def story() -> Story:
    made = Story()
    made.tell("node a CPU=2")
    return made


def ask(story: Story, what: str, **arguments: Any) -> Any:
    """The answer; None while there is none. Refusals are raised."""
    story.requests += 1
    answers = answered(story.take(m.Ask(story.requests, ASKER, what, arguments)))
    if answers and answers[0].error:
        raise ValueError(answers[0].error)
    return answers[0].result if answers else None


def answered(effects: list[Effect]) -> list[m.Answer]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, m.Answer)]


def submit(story: Story, name: str = "j", **fields: Any) -> Any:
    return ask(story, "job_submit", submission_id=name, entrypoint="python x.py", **fields)


def status(story: Story, name: str = "j") -> str:
    return str(ask(story, "job_info", submission_id=name)["status"])


def sent(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [(e.to.node, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def order(story: Story, **fields: Any) -> list[tuple[bytes, m.RunEntrypoint]]:
    """Submit job j; the orders to nodes that come of it."""
    arguments = {"submission_id": "j", "entrypoint": "python x.py", **fields}
    return sent(story.take(m.Ask(1, ASKER, "job_submit", arguments)), m.RunEntrypoint)


def begin(story: Story, node: str = "a") -> None:
    story.take(m.EntrypointBegun("j", ident(node), 4000))


def end(story: Story, code: int | None = 0, number: int | None = None, node: str = "a", **fields: Any) -> list[Effect]:
    return story.take(m.EntrypointEnded("j", ident(node), code, number, **fields))


def test_a_job_is_given_to_the_heads_node_and_is_pending_running_and_succeeded(story: Story) -> None:
    ((node, run),) = order(story, metadata={"k": "v"}, runtime_env={"env_vars": {"A": "1"}})
    assert node == ident("a")
    assert run.command == "python x.py"
    assert run.environment["A"] == "1"
    assert '"job_submission_id": "j"' in run.environment["NBRAY_JOB_CONFIG_JSON"]
    assert status(story) == "PENDING"
    begin(story)
    assert status(story) == "RUNNING"
    end(story)
    info = ask(story, "job_info", submission_id="j")
    assert (info["status"], info["exit_code"], info["message"]) == ("SUCCEEDED", 0, "Job finished successfully.")
    assert info["start_time"] <= info["end_time"]


@pytest.mark.parametrize(
    ("code", "number", "said"), [(3, None, "exit code 3"), (None, 11, "signal 11"), (None, None, "ended: its watcher died")]
)
def test_a_job_that_fails_says_how_and_shows_its_last_output(story: Story, code: int | None, number: int | None, said: str) -> None:
    submit(story)
    begin(story)
    end(story, code, number, reason="" if code or number else "its watcher died", log_tail="Traceback ...")
    info = ask(story, "job_info", submission_id="j")
    assert (info["status"], info["error_type"]) == ("FAILED", "JOB_ENTRYPOINT_COMMAND_ERROR")
    assert said in info["message"]
    assert info["message"].endswith("Traceback ...")


def test_a_command_that_cannot_begin_is_told_from_one_that_fails(story: Story) -> None:
    submit(story)
    end(story, None, reason="/nowhere: No such file or directory")
    info = ask(story, "job_info", submission_id="j")
    assert (info["status"], info["error_type"]) == ("FAILED", "JOB_ENTRYPOINT_COMMAND_START_ERROR")
    assert "/nowhere" in info["message"]


def test_an_id_is_used_once(story: Story) -> None:
    submit(story)
    with pytest.raises(ValueError, match=r"already exists. Please use a different submission_id"):
        submit(story)
    with pytest.raises(ValueError, match="1 to 80 printable bytes"):
        submit(story, "x" * 81)


def test_a_job_that_is_stopped_is_stopped_however_it_ends(story: Story) -> None:
    submit(story)
    begin(story)
    told = story.take(m.Ask(9, ASKER, "job_stop", {"submission_id": "j"}))
    assert sent(told, m.EndEntrypoint) == [(ident("a"), m.EndEntrypoint("j"))]
    assert answered(told)[0].result is True
    assert status(story) == "RUNNING"
    end(story, 0)
    assert status(story) == "STOPPED"
    assert ask(story, "job_stop", submission_id="j") is False


def test_only_a_job_that_is_over_can_be_deleted_and_its_node_forgets_the_log(story: Story) -> None:
    submit(story)
    with pytest.raises(ValueError, match="non-terminal state PENDING"):
        ask(story, "job_delete", submission_id="j")
    end(story)
    gone = story.take(m.Ask(9, ASKER, "job_delete", {"submission_id": "j"}))
    assert sent(gone, m.EndEntrypoint) == [(ident("a"), m.EndEntrypoint("j", forget=True))]
    with pytest.raises(ValueError, match="404: Job j does not exist"):
        status(story)
    assert not story.tables["submissions"]


def test_who_waits_for_a_change_is_answered_by_it_and_not_before(story: Story) -> None:
    submit(story)
    assert ask(story, "job_wait", submission_id="j", status="PENDING", timeout_s=30) is None
    story.now += 5
    assert not answered(story.take(Tick()))
    begun = answered(story.take(m.EntrypointBegun("j", ident("a"), 4000)))
    assert [answer.result["status"] for answer in begun] == ["RUNNING"]
    assert ask(story, "job_wait", submission_id="j", status="PENDING", timeout_s=30)["status"] == "RUNNING"


def test_who_waits_in_vain_is_answered_in_time(story: Story) -> None:
    submit(story)
    asked = story.now
    assert ask(story, "job_wait", submission_id="j", status="PENDING", timeout_s=30) is None
    due = story.head.submissions.next_deadline()
    assert due == asked + 30
    story.now = due
    assert [answer.result["status"] for answer in answered(story.take(Tick()))] == ["PENDING"]
    assert story.head.submissions.next_deadline() is None


def test_a_job_goes_where_its_resources_are_and_waits_if_they_are_nowhere(story: Story) -> None:
    assert order(story, amounts=to_amounts({"GPU": 1})) == []
    assert "num_gpus=1; no node has any" in ask(story, "job_info", submission_id="j")["message"]
    ((node, run),) = sent(story.take(m.RegisterNode(node_info("b", {"CPU": 1, "GPU": 1}))), m.RunEntrypoint)
    assert (node, run.amounts) == (ident("b"), to_amounts({"GPU": 1}))
    begin(story, "b")
    story.tell("gone b its machine was switched off")
    info = ask(story, "job_info", submission_id="j")
    assert info["status"] == "FAILED"
    assert "its machine was switched off" in info["message"]
    end(story, 0, node="b")
    assert status(story) == "FAILED"


def test_the_submitters_directory_means_something_on_the_heads_machine_only(story: Story) -> None:
    story.tell("node b GPU=1")
    assert order(story, cwd="/home/me")[0][1].directory == "/home/me"
    end(story)
    ask(story, "job_delete", submission_id="j")
    assert order(story, cwd="/home/me", amounts=to_amounts({"GPU": 1}))[0][1].directory == ""
    story.take(m.EntrypointEnded("j", ident("b"), 0, None))
    ask(story, "job_delete", submission_id="j")
    assert order(story, directory="/data", amounts=to_amounts({"GPU": 1}))[0][1].directory == "/data"


def test_a_job_and_its_driver_are_one_line_of_the_listing(story: Story) -> None:
    submit(story)
    begin(story)
    story.take(m.JobStarted(Address(ident("a"), ident("d")), "x.py", "", 50, "j"))
    story.take(m.JobStarted(Address(ident("a"), ident("n")), "notebook.ipynb", "", 60))
    story.tell("job-ended n@a")
    submitted, driver = ask(story, "job_list")
    assert (submitted["type"], submitted["job_id"], submitted["driver_pid"]) == ("SUBMISSION", ident("d").hex(), 50)
    assert (driver["type"], driver["submission_id"], driver["status"]) == ("DRIVER", None, "SUCCEEDED")


def test_after_a_restart_what_ran_on_the_heads_node_has_failed_and_what_waited_begins(story: Story) -> None:
    submit(story, "ran")
    story.take(m.EntrypointBegun("ran", ident("a"), 4000))
    submit(story, "waited")
    submit(story, "told")
    ask(story, "job_stop", submission_id="told")
    story.restart(ident("e"))
    assert [status(story, name) for name in ("ran", "waited", "told")] == ["FAILED", "PENDING", "STOPPED"]
    assert "head's node ended" in ask(story, "job_info", submission_id="ran")["message"]
    begun = sent(story.take(m.RegisterNode(node_info("e", {"CPU": 1}))), m.RunEntrypoint)
    assert [(node, run.submission) for node, run in begun] == [(ident("e"), "waited")]


def test_a_node_that_outlived_its_head_is_asked_what_became_of_its_jobs(story: Story) -> None:
    story.tell("node b GPU=1")
    order(story, amounts=to_amounts({"GPU": 1}))
    begin(story, "b")
    story.restart(ident("e"))
    assert status(story) == "RUNNING"
    again = sent(story.take(m.Heartbeat(node_info("b", {"GPU": 1}))), m.RunEntrypoint)
    assert [node for node, _ in again] == [ident("b")]
    end(story, 0, node="b")
    assert status(story) == "SUCCEEDED"


def test_old_jobs_make_room_for_new_ones(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbray.config.JOB_ENDED_KEPT", 2)
    for name in ("one", "two", "three"):
        submit(story, name)
        story.take(m.EntrypointEnded(name, ident("a"), 0, None))
    submit(story, "four")
    assert [job["submission_id"] for job in ask(story, "job_list")] == ["two", "three", "four"]


# ----------------------------------------------------------------------------------------------------- environments, labels

PACKAGE = "gcs://_ray_pkg_1.zip"


def told(run: m.RunEntrypoint) -> dict[str, Any]:
    """The environment that the driver of the job finds."""
    return dict(json.loads(run.environment["NBRAY_JOB_CONFIG_JSON"])["runtime_env"])


def test_what_has_to_be_made_travels_with_the_order_and_variables_do_not_count(story: Story) -> None:
    ((_, run),) = order(story, runtime_env={"env_vars": {"A": "1"}})
    assert run.env == ""
    end(story)
    ask(story, "job_delete", submission_id="j")
    ((_, run),) = order(story, runtime_env={"env_vars": {"A": "1"}, "pip": {"packages": ["x"]}})
    assert run.env == '{"pip":{"packages":["x"]}}'
    assert told(run) == {"env_vars": {"A": "1"}, "pip": {"packages": ["x"]}}


def test_a_working_dir_is_run_in_on_the_heads_machine_and_its_package_elsewhere(story: Story) -> None:
    story.tell("node b GPU=1")
    env = {"working_dir": PACKAGE}
    ((_, run),) = order(story, directory="/data", runtime_env=env)
    assert (run.directory, run.modules, run.env) == ("/data", ["/data"], "")
    assert told(run) == {"working_dir": "/data"}
    assert ask(story, "job_info", submission_id="j")["runtime_env"] == {"working_dir": "/data"}
    end(story)
    ask(story, "job_delete", submission_id="j")
    ((_, run),) = order(story, directory="/data", runtime_env=env, amounts=to_amounts({"GPU": 1}))
    assert (run.directory, run.modules, run.env) == ("", [], '{"working_dir":"gcs://_ray_pkg_1.zip"}')
    assert told(run) == env


def test_packages_are_kept_for_a_submitted_job_and_let_go_when_it_is_over(story: Story) -> None:
    ask(story, "package_put", uri=PACKAGE, job=holder_of("j"), index=0, chunks=1, data=b"zip")
    submit(story, runtime_env={"working_dir": PACKAGE})
    story.restart(ident("e"))
    held = story.head.questions.packages.held
    assert held[PACKAGE].jobs == {holder_of("j")}
    story.take(m.RegisterNode(node_info("e", {"CPU": 1})))
    story.take(m.EntrypointEnded("j", ident("e"), 0, None))
    assert not held


def test_a_job_goes_to_a_node_with_the_labels_that_it_asks_for_and_says_so_while_there_is_none(story: Story) -> None:
    assert order(story, labels={"zone": "in(a, b)"}) == []
    assert "a node with zone=in(a, b); no node has such labels" in ask(story, "job_info", submission_id="j")["message"]
    other, wanted = (
        msgspec.structs.replace(node_info(name, {"CPU": 1}), labels={"zone": zone}) for name, zone in (("b", "c"), ("d", "a"))
    )
    assert not sent(story.take(m.RegisterNode(other)), m.RunEntrypoint)
    assert [node for node, _ in sent(story.take(m.RegisterNode(wanted)), m.RunEntrypoint)] == [wanted.node]


def test_an_environment_that_cannot_be_made_fails_the_job_with_the_installers_words(story: Story) -> None:
    submit(story)
    end(story, None, reason="no such package", unmade=True)
    info = ask(story, "job_info", submission_id="j")
    assert (info["status"], info["error_type"]) == ("FAILED", "RUNTIME_ENV_SETUP_FAILURE")
    assert info["message"] == "runtime_env setup failed: no such package"
