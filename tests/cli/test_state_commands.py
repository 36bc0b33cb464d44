"""`nbray list|get|summary|memory|logs|stack` on a cluster with something in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nbray
from nbray import cli, cli_tables, session
from nbray.cli_state import parsed_filter
from nbray.util.state import get_log, list_logs, list_tasks
from nbray.util.state.exception import RayStateApiException


@nbray.remote
class Printer:
    def say(self, text):
        print(text)
        return os.getpid()

    def hold(self):
        while not os.path.exists(self.until):
            time.sleep(0.01)

    def hold_until(self, path):
        self.until = path
        self.hold()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    nbray.init(num_cpus=2)
    yield
    nbray.shutdown()


@pytest.fixture(scope="module")
def printer(cluster: None) -> Any:
    actor = Printer.options(name="printer").remote()
    nbray.get(actor.say.remote("first words"))
    return actor


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: (exit code, stdout, stderr)."""
    monkeypatch.delenv("COLUMNS", raising=False)  # a test run may have set the width of its own output

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_list_shows_a_table_and_json_has_everything(run: Any, printer: Any) -> None:
    code, out, _ = run("list", "actors", "--filter", "class_name=Printer")
    assert code == 0
    assert out.splitlines()[0].split()[:4] == ["CLASS_NAME", "NAME", "STATE", "PID"]
    assert out.splitlines()[1].split()[:3] == ["Printer", "printer", "ALIVE"]
    code, out, _ = run("list", "actors", "--format", "json", "--detail")
    assert json.loads(out)[0]["actor_id"] == printer._actor_id.hex()


def test_a_narrow_terminal_names_what_it_has_no_room_for(run: Any, printer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("list", "tasks")
    assert max(map(len, out.splitlines())) <= 80
    assert "No room for:" in out
    assert "parent_task_id" in out
    monkeypatch.setenv("COLUMNS", "300")
    assert "No room for:" not in run("list", "tasks")[1]


def test_a_list_that_is_cut_says_of_how_many(run: Any) -> None:
    @nbray.remote
    def several():
        pass

    nbray.get([several.remote() for _ in range(3)])
    _, out, err = run("list", "tasks", "-f", "name=several", "--limit", "2")
    assert out.count("several") == 2 * 2, "name and function"
    assert "2 of 3 are shown" in err


def test_get_and_what_is_not_there(run: Any, printer: Any) -> None:
    code, out, _ = run("get", "actors", printer._actor_id.hex())
    assert code == 0
    assert "class_name: Printer" in out
    code, _, err = run("get", "actors", "ab" * 16)
    assert code == 1
    assert err.startswith("nbray: there is no actor with the id abab")


def test_a_wrong_filter_is_one_line_that_says_what_there_is(run: Any) -> None:
    code, _, err = run("list", "tasks", "--filter", "colour=red")
    assert (code, err.count("\n")) == (1, 1)
    assert "Supported filter columns: task_id" in err
    assert "KEY=VALUE" in run("list", "tasks", "--filter", "state")[2]


def test_summaries(run: Any, printer: Any) -> None:
    assert "Printer.say" in run("summary", "tasks")[1]
    assert "ALIVE 1" in run("summary", "actors")[1]
    assert "total objects" in run("summary", "objects")[1]


def test_memory_names_the_line_and_the_store(run: Any) -> None:
    kept = nbray.put(b"x" * 2**20)
    line = f"test_state_commands.py:{sys._getframe().f_lineno - 1}"
    _, out, _ = run("memory", "--units", "MB", "--sort-by", "object_size")
    assert line in out
    assert kept.hex() in out
    assert "Object stores:" in out
    assert f"stack trace {line}" in run("memory", "--group-by", "STACK_TRACE")[1]
    assert line not in run("memory", "--stats-only")[1]


def test_logs_of_an_actor_a_task_a_process_and_a_file(run: Any, printer: Any) -> None:
    ref = printer.say.remote("words in the log")
    pid = nbray.get(ref)
    for command in (
        ("actor", "--id", printer._actor_id.hex()),
        ("task", "--id", ref.task_id().hex()),
        ("worker", "--pid", str(pid)),
        ("cluster", f"worker-{pid}.log"),
    ):
        code, out, err = run("logs", *command, "--tail", "1")
        assert (code, out) == (0, "words in the log\n"), err
    assert f"worker-{pid}.log" in run("logs", "cluster")[1]
    assert "no log file matches" in run("logs", "cluster", "nothing-*")[2]
    assert "there is no actor" in run("logs", "actor", "--id", "00")[2]


def test_a_log_is_followed_as_it_grows(printer: Any) -> None:
    pid = nbray.get(printer.say.remote("before"))
    lines = get_log(pid=pid, follow=True, tail=1, _interval=0.01)
    assert next(lines) == "before\n"
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.append(next(lines)), daemon=True)
    listener.start()
    nbray.get(printer.say.remote("after"))
    listener.join(20)
    assert heard == ["after\n"]


def test_the_last_lines_of_a_long_log_are_found_across_pieces() -> None:
    @nbray.remote
    def long():
        for i in range(60_000):
            os.write(1, b"%08d %s\n" % (i, b"x" * 10))
        return os.getpid()

    pid = nbray.get(long.remote())
    text = "".join(get_log(pid=pid, tail=30_000))
    assert text.splitlines()[0].startswith("00030000 ")
    assert text.splitlines()[-1].startswith("00059999 ")
    assert "".join(get_log(pid=pid, tail=0)) == ""


def test_logs_are_read_only_by_their_names() -> None:
    for name in ("../lifeline", "/etc/passwd", ".", ""):
        with pytest.raises(RayStateApiException):
            list(get_log(filename=name))
    with pytest.raises(ValueError, match="suffix"):
        list(get_log(pid=1, suffix="both"))
    assert any(name.startswith("worker-") for name in list_logs()["worker"])


def test_the_stacks_show_the_users_code_and_none_of_ours(run: Any, tmp_path: Any) -> None:
    holder = Printer.options(num_cpus=0).remote()
    held = holder.hold_until.remote(str(tmp_path / "go"))
    while not [t for t in list_tasks(filters=[("name", "=", "Printer.hold_until")]) if t.state == "RUNNING"]:
        pass
    _, out, _ = run("stack")
    assert "in hold\n" in out
    assert "executor.py" not in out
    assert "nbray-io" not in out
    (tmp_path / "go").touch()
    nbray.get(held)


def test_another_process_looks_at_a_script_is_cluster_by_its_directory(printer: Any) -> None:
    assert session.engine is not None
    directory = session.engine.description()["directory"]
    command = [sys.executable, "-m", "nbray", "list", "actors", "--address", directory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Printer" in done.stdout


@pytest.mark.parametrize(
    ("text", "parsed"), [("state=RUNNING", ("state", "=", "RUNNING")), ("a!=b=c", ("a", "!=", "b=c")), ("a=", ("a", "=", ""))]
)
def test_filters_as_typed(text: str, parsed: tuple[str, str, str]) -> None:
    assert parsed_filter(text) == parsed


def test_yaml_is_yaml() -> None:
    data = [{"id": "0012", "name": "f", "on": True, "none": None, "labels": {"a": "b: c"}, "list": [1, {"x": []}], "yes": "no"}]
    assert cli_tables.as_yaml(data).splitlines() == [
        '-   id: "0012"',
        "    name: f",
        '    "on": true',
        "    none: null",
        "    labels:",
        '        a: "b: c"',
        "    list:",
        "        -   1",
        "        -   x: []",
        '    "yes": "no"',
    ]
