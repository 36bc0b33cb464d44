"""The `nbray` command as a person types it: real daemons, real ports on the loopback interface."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbray import cli, cli_ray
from nbray.driver import dashboard, launch
from nbray.driver.viewer import Viewer
from nbray.wire import connection_file, rundir

BOUND_S = 60.0


class Result:
    """How a command ended and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def nbray(*arguments: str, **environment: str) -> Result:
    command = [sys.executable, "-m", "nbray", *arguments]
    env = {k: v for k, v in os.environ.items() if k not in ("NBRAY_TOKEN", "NBRAY_ADDRESS")}
    return Result(subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, timeout=BOUND_S, check=False))


class Cluster:
    """A head started by the command line."""

    def __init__(self, *arguments: str) -> None:
        self.started = nbray("start", "--head", "--port", "0", "--num-cpus", "1", "--object-store-memory", str(2**24), *arguments)
        assert self.started.code == 0, self.started.err
        self.address = re.search(r"at (127\.0\.0\.1:\d+) ", self.started.out)[1]  # type: ignore[index]
        self.token = re.search(r"NBRAY_TOKEN=(\S+) nbray start", self.started.out)[1]  # type: ignore[index]
        self.pid = int(re.search(r"\(pid (\d+)\)", self.started.out)[1])  # type: ignore[index]
        self.file = re.search(r"Connection file: (\S+)", self.started.out)[1]  # type: ignore[index]

    def join(self, *arguments: str) -> Result:
        return nbray("start", "--address", self.address, "--num-cpus", "1", "--object-store-memory", str(2**24), *arguments)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    nbray("stop", "--force")


def one_line(result: Result) -> str:
    assert result.code == 1, result.out + result.err
    assert result.err.startswith("nbray: ")
    assert result.err.count("\n") == 1, result.err
    return result.err


def ended(pid: int) -> bool:
    """Whether it is gone; where nobody reaps orphans, its name stays."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_nodes(directory: str, count: int) -> list[dict[str, object]]:
    """The cluster's living nodes, once there are `count` of them: a node registers after its gateway was admitted."""
    with Viewer(directory) as viewer:
        while True:
            alive = [node for node in viewer.ask("nodes") if node["alive"]]
            if len(alive) == count:
                return alive
            time.sleep(0.02)


def test_start_status_and_stop_of_a_cluster_of_two_nodes(cluster: Cluster) -> None:
    joined = cluster.join("--resources", '{"disk": 3}', "--labels", "rack=a,zone=b")
    assert joined.code == 0, joined.err
    assert "Joined cluster" in joined.out
    nodes = wait_nodes(connection_file.load(cluster.file).connection.directory, 2)
    assert {"rack": "a", "zone": "b"}.items() <= nodes[1]["labels"].items()
    status = nbray("status")
    assert status.code == 0, status.err
    assert cluster.address in status.out
    assert "2 nodes" in status.out
    assert "CPU 0 of 2" in status.out
    assert "disk 0 of 3" in status.out
    assert "Nothing waits." in status.out
    assert "label rack=a" not in status.out
    assert "label rack=a" in nbray("status", "-v").out
    stopped = nbray("stop")
    assert stopped.code == 0
    assert re.findall(r"Stopped the (\w+) of 127\.0\.0\.1:\d+ \(pid \d+, in order", stopped.out) == ["node", "head"]
    assert ended(cluster.pid)
    assert not os.path.exists(cluster.file)
    assert "nothing that `nbray start` began" in one_line(nbray("stop"))


def test_a_machine_without_the_file_joins_with_the_token_and_looks_with_it(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    elsewhere = str(tmp_path / "other")
    refused = nbray("status", "--address", cluster.address, XDG_RUNTIME_DIR=elsewhere)
    assert "NBRAY_TOKEN" in one_line(refused)
    status = nbray("status", "--address", cluster.address, XDG_RUNTIME_DIR=elsewhere, NBRAY_TOKEN=cluster.token)
    assert status.code == 0, status.err
    assert "1 node" in status.out
    command = [sys.executable, "-m", "nbray", "dashboard", "--address", cluster.address, "--port", "0"]
    env = {**os.environ, "XDG_RUNTIME_DIR": elsewhere, "NBRAY_TOKEN": cluster.token}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = re.search(r"http://\S+", process.stdout.readline())[0]  # type: ignore[index]
            visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            visitor.open(url, timeout=BOUND_S).close()
            with visitor.open(url.partition("?")[0] + "/api/clusters", timeout=BOUND_S) as reply:
                (there,) = json.load(reply)["clusters"]
            assert cluster.address in there["name"]
            with visitor.open(url.partition("?")[0] + f"/api/snapshot?cluster={there['id']}", timeout=BOUND_S) as reply:
                nodes = json.load(reply)["views"]["overview"]["nodes"]
            assert [node["cpus"] for node in nodes if node["head"]] == [1.0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=BOUND_S)
    assert process.returncode == 0


ELSEWHERE = """
import sys, nbray
nbray.init(sys.argv[1])

@nbray.remote(resources={"disk": 1})
def there(values):
    return nbray.get_runtime_context().get_node_id(), bytes(values)

node, back = nbray.get(there.remote(nbray.put(b"x" * 3_000_000)), timeout=30)
print(node, len(back), len(nbray.get([there.remote(b"") for _ in range(50)], timeout=30)))
"""


def test_a_driver_elsewhere_runs_tasks_on_a_node_that_joined(cluster: Cluster, tmp_path: Path) -> None:
    joined = cluster.join("--resources", '{"disk": 3}')
    assert joined.code == 0, joined.err
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "script.py").write_text(ELSEWHERE)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "other"), "NBRAY_TOKEN": cluster.token}
    command = [sys.executable, str(tmp_path / "script.py"), cluster.address]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stderr
    node, size, count = done.stdout.split()
    assert f"as node {node[:4]} " in joined.out
    assert (size, count) == ("3000000", "50")


def test_the_connection_file_is_private_and_the_secret_stands_nowhere_else(cluster: Cluster) -> None:
    assert os.stat(cluster.file).st_mode & 0o777 == 0o600
    secret = connection_file.load(cluster.file).connection.secret
    assert cluster.join().code == 0
    for process in psutil.process_iter():
        try:
            told = b"\0".join((Path(f"/proc/{process.pid}") / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        assert secret.encode() not in told
        assert cluster.token.encode() not in told
    for directory in rundir.in_use():
        for log in Path(f"/tmp/nbray-{os.geteuid()}/{os.path.basename(directory)}/logs").glob("*"):
            assert secret not in log.read_text()


def test_a_token_with_a_wrong_secret_is_refused_naming_the_variable(cluster: Cluster) -> None:
    connection = connection_file.load(cluster.file).connection
    other = connection_file.of_secret(connection.cluster, b"x" * 32, connection.host, connection.port, "", "")
    said = one_line(nbray("start", "--address", cluster.address, NBRAY_TOKEN=other.token()))
    assert "$NBRAY_TOKEN" in said
    assert "server key" in said


def test_nothing_at_the_address_is_said_in_one_line() -> None:
    nowhere = connection_file.new("127.0.0.1", 1, created="")
    assert "nothing listens at 127.0.0.1:1" in one_line(nbray("start", "--address", "127.0.0.1:1", NBRAY_TOKEN=nowhere.token()))
    assert "nothing listens" in one_line(nbray("status", "--address", "127.0.0.1:1", NBRAY_TOKEN=nowhere.token()))


def test_a_head_that_was_killed_is_said_to_be_gone_and_stop_tidies_up(cluster: Cluster) -> None:
    process = psutil.Process(cluster.pid)
    os.kill(cluster.pid, signal.SIGKILL)
    psutil.wait_procs([process], BOUND_S)
    assert "is not running" in one_line(nbray("status"))
    stopped = nbray("stop")
    assert stopped.code == 0, stopped.err
    assert f"The head of {cluster.address} had ended without a word" in stopped.out
    assert not os.path.exists(cluster.file)
    assert "nothing that `nbray start` began is running here" in one_line(nbray("stop"))


def test_a_head_in_the_place_of_one_that_was_killed_is_the_only_one_there(cluster: Cluster) -> None:
    process = psutil.Process(cluster.pid)
    os.kill(cluster.pid, signal.SIGKILL)
    psutil.wait_procs([process], BOUND_S)
    again = nbray("start", "--head", "--port", cluster.address.rpartition(":")[2], "--num-cpus", "1")
    assert again.code == 0, again.err
    assert not os.path.exists(cluster.file)
    assert "1 node\n" in nbray("status", "--address", cluster.address).out


#: What a notebook goes through whose cluster is killed.
BEREAVED = """
import os, signal, sys
import nbray
from IPython.testing.globalipapp import start_ipython
from nbray.driver.joining import pid_behind
from nbray.exceptions import HeadUnavailableError

shell = start_ipython()
nbray.init("auto")
shell.run_line_magic("load_ext", "nbray")
f = nbray.remote(lambda: 42)
assert nbray.get(f.remote()) == 42
lost = nbray.session.engine.runtime._known
os.kill(pid_behind(nbray.session.engine.description()["directory"]), signal.SIGKILL)
while not nbray.session.engine.lost:
    lost.wait(1.0)
print("initialized", nbray.is_initialized())
shell.run_line_magic("nbray", "status")
try:
    f.remote()
except HeadUnavailableError as error:
    print("said", error)
nbray.init("local", num_cpus=1)
print("answer", nbray.get(f.remote()), nbray.is_initialized())
nbray.shutdown()
"""


def test_a_notebook_whose_cluster_was_killed_hears_so_at_once_and_starts_anew(cluster: Cluster) -> None:
    done = subprocess.run([sys.executable, "-c", BEREAVED], capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "initialized False" in done.stdout
    assert f"{cluster.address}, which does not answer" in done.stdout
    assert "ended; nbray.init() attaches to a cluster again" in done.stdout.partition("said ")[2]
    assert "has been starting" not in done.stdout, "nothing was waited for"
    assert "answer 42 True" in done.stdout


def test_a_head_started_again_with_its_state_keeps_its_secret(tmp_path: Path) -> None:
    state = str(tmp_path / "head.db")
    first = Cluster("--state", state)
    process = psutil.Process(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([process], BOUND_S)
    before = connection_file.load(first.file).connection
    port = first.address.rpartition(":")[2]
    again = nbray("start", "--head", "--port", port, "--num-cpus", "1", "--state", state)
    try:
        assert again.code == 0, again.err
        after = connection_file.load(first.file).connection
        assert (after.cluster, after.secret) == (before.cluster, before.secret)
    finally:
        nbray("stop", "--force")


def test_timeline_writes_events_that_perfetto_can_read(cluster: Cluster, tmp_path: Path) -> None:
    done = nbray("timeline", "-o", str(tmp_path / "t.json"))
    assert done.code == 0, done.err
    assert isinstance(json.loads((tmp_path / "t.json").read_text()), list)
    assert json.loads(nbray("timeline", "-o", "-").out) == json.loads((tmp_path / "t.json").read_text())


def test_block_stays_until_it_is_interrupted_and_leaves_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "nbray",
        "start",
        "--head",
        "--port",
        "0",
        "--num-cpus",
        "1",
        "--object-store-memory",
        str(2**24),
        "--block",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = ""
        while "Connection file" not in told:
            told += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(BOUND_S) == 0
    assert "Stopped." in rest
    assert not list(connection_file.known())


def test_a_cluster_of_a_script_can_be_looked_at_by_its_directory() -> None:
    launched = launch.listening(launch.begin_local(num_cpus=1, object_store_memory=2**24))
    try:
        status = nbray("status", "--address", launched.directory)
        assert status.code == 0, status.err
        assert "CPU 0 of 1" in status.out
    finally:
        launch.stop(launched)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_listening_everywhere_must_be_asked_for_in_so_many_words(address: str) -> None:
    assert "--listen-all" in one_line(nbray("start", "--head", "--node-ip-address", address))


def test_a_token_on_the_command_line_is_refused() -> None:
    token = connection_file.new("127.0.0.1", 1, created="").token()
    said = one_line(nbray("start", "--address", token))
    assert "shows in `ps`" in said
    assert token not in said


def test_a_port_that_is_taken_is_one_line(cluster: Cluster) -> None:
    said = one_line(nbray("start", "--head", "--port", cluster.address.rpartition(":")[2]))
    assert "cannot listen" in said


def test_a_node_that_joins_serves_no_page_and_says_who_does(cluster: Cluster) -> None:
    done = cluster.join("--disable-usage-stats", "--include-dashboard=true", "--dashboard-host", "0.0.0.0", "--dashboard-port=8265")
    assert done.code == 0, done.err
    assert done.out.count("page is served by its head") == 1
    assert "page" not in cluster.join("--include-dashboard=false").out


def test_a_head_with_a_dashboard_port_serves_its_page_until_it_ends() -> None:
    cluster = Cluster("--dashboard-port", "0")
    try:
        address, token = re.search(r"http://(127\.0\.0\.1:\d+)/nbray\?token=(\S+)", cluster.started.out).groups()  # type: ignore[union-attr]
        assert "You are in" in fetched(f"http://{address}/nbray?token={token}")
        again = nbray("dashboard")
        assert again.code == 0, again.err
        fresh = re.search(rf"It runs already: (http://{address}/nbray\?token=\S+)", again.out)
        assert fresh, again.out
        assert token not in again.out
        assert "You are in" in fetched(fresh[1])
        directory = connection_file.load(cluster.file).connection.directory
        place = dashboard.place(directory)
        assert place is not None
        assert token not in " ".join(psutil.Process(place.pid).cmdline())
    finally:
        nbray("stop", "--force")
    wait_gone(place.pid)


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=BOUND_S) as reply:
        return str(reply.read().decode())


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + BOUND_S
    while not ended(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_a_page_that_others_could_reach_has_to_be_meant(host: str) -> None:
    for command in (["start", "--head", "--port", "0", "--dashboard-host", host], ["dashboard", "--host", host]):
        assert "--listen-all" in one_line(nbray(*command))
    assert "nothing that `nbray start` began" in one_line(nbray("stop"))


def test_a_page_that_cannot_listen_leaves_no_cluster(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = one_line(nbray("start", "--head", "--port", "0", "--dashboard-port", port))
        assert f"cannot listen at 127.0.0.1:{port}" in said
        assert port in one_line(nbray("dashboard", "--port", port))
    assert nbray("stop").out.count("Stopped the head") == 1


def test_nbray_dashboard_serves_all_clusters_here_until_it_is_told_to_end(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "nbray", "dashboard", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())[0]  # type: ignore[index]
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with visitor.open(url, timeout=BOUND_S) as reply:
            assert reply.status == 200
        with visitor.open(url.partition("?")[0] + "/api/clusters", timeout=BOUND_S) as reply:
            assert cluster.address in [each["address"] for each in json.load(reply)["clusters"]]
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 0
        assert "The page has ended." in process.stdout.read()
    finally:
        process.kill()
        process.communicate()
    assert cluster.address in nbray("status").out


def test_rays_other_options_of_start_are_accepted_and_say_why_they_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "start",
        "--head",
        "--node-manager-port",
        "1",
        "--object-manager-port=2",
        "--no-monitor",
        "--ray-client-server-port",
        "3",
    ]
    said = cli_ray.notices(cli._parser().parse_args(given))
    assert said == [
        "No effect: --object-manager-port, --node-manager-port; each node has one port: --port.",
        "No effect: --ray-client-server-port; drivers elsewhere connect to --port.",
        "No effect: --no-monitor; there is no autoscaler.",
    ]
    assert cli_ray.notices(cli._parser().parse_args(["start", "--head", "--include-dashboard=no"])) == []
    with pytest.raises(SystemExit):
        cli.main(["start", "--help"])
    assert "--node-manager-port" not in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(cli_ray.COMMANDS))
def test_a_command_that_only_ray_has_says_what_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "cluster.yaml", "-y"]) == 2
    assert f"nbray: `nbray {command}` is not built" in (said := capsys.readouterr().err)
    assert "What works here: " in said


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["start"],
        ["start", "--head", "--address", "a:1"],
        ["start", "--head", "--port", "70000"],
        ["start", "--head", "--resources", "{disk: 3}"],
        ["start", "--head", "--labels", "novalue"],
        ["start", "--head", "--dashboard-port", "70000"],
        ["start", "--head", "--include-dashboard", "perhaps"],
        ["dashboard", "--port", "x"],
        ["no-such-command"],
        ["stop", "--grace-period", "soon"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: nbray" in capsys.readouterr().err


def test_status_tells_what_waits_where_and_why() -> None:
    node = {
        "node_id": "b71e" + "0" * 12, "host": "h", "pid": 7, "alive": True, "is_head": True, "suspect": True,
        "total": {"CPU": 40_000, "memory": 2**30 * 10_000}, "available": {"CPU": 5_000, "memory": 2**29 * 10_000},
        "store_bytes": 2**30, "store_used": 2**20, "death_cause": "",
        "queued": [{"amounts": {"GPU": 20_000}, "count": 3, "why": "no node has a GPU"}],
    }  # fmt: skip
    dead = {**node, "node_id": "dead" * 4, "alive": False, "queued": [], "death_cause": "silent for 15 s"}
    told = cli._described("cluster x", [node, dead])
    assert "CPU 3.5 of 4" in told
    assert "memory 0.5 GiB of 1.0 GiB" in told
    assert "SUSPECT" in told
    assert "3 x (GPU 2) on node b71e: no node has a GPU" in told
    assert "node dead on h: silent for 15 s" in told
    assert "1 node\n" in told
