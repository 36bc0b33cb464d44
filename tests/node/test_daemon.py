"""The real daemon, its zygote, forked workers and the lifeline: who comes, who goes, and what is left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest

import nbray
from nbray.driver.launch import Launched, start, stop
from nbray.exceptions import NodeStartError
from nbray.ids import HEAD, Address, new_process_id
from nbray.node.settings import NodeSettings
from nbray.sched.resources import to_amounts
from nbray.wire import lifeline, rundir
from nbray.wire import messages as m
from nbray.wire.mailbox import Mailbox

M = TypeVar("M")
REPOSITORY = Path(__file__).parent.parent.parent
BARE = NodeSettings(num_cpus=2, object_store_memory=2**20, entry="tests.node.bare_worker:run")
#: A bound for what takes milliseconds; nothing here is timed.
PATIENCE_S = 20.0


class Driver:
    """A driver process as the daemon sees one: a lifeline and a mailbox."""

    def __init__(self, launched: Launched, role: str = "driver") -> None:
        self.launched = launched
        self.id = new_process_id()
        self.address = Address(launched.node, self.id)
        self.node = Address(launched.node, launched.node)
        self.mailbox = Mailbox(self.address, launched.directory)
        self._mail: deque[m.Message] = deque()
        self.line, self.welcome, self.arena_fd = lifeline.connect(launched.directory, lifeline.hello(role, self.id, job="test"))

    def send(self, message: m.Message, to: Address | None = None) -> None:
        self.mailbox.send(to or self.node, message)

    def expect(self, kind: type[M]) -> M:
        """The next message of this kind; others before it are passed over. Fails after PATIENCE_S without mail."""
        while True:
            if not self._mail:
                self._mail.extend(self.mailbox.receive(PATIENCE_S))
            assert self._mail, f"no {kind.__name__} came"
            message = self._mail.popleft()
            if isinstance(message, kind):
                return message

    def lease(self, request: int = 1) -> m.LeaseGranted:
        self.send(m.RequestLease(request, self.address, m.Shape(to_amounts({"CPU": 1})), job=self.id))
        return self.expect(m.LeaseGranted)

    def ask(self, what: str, to: Address | None = None) -> Any:
        self.send(m.Ask(1, self.address, what), to)
        answer = self.expect(m.Answer)
        assert not answer.error
        return answer.result

    def hangs_up_seen(self) -> bool:
        """Wait for the daemon's end of the lifeline to close."""
        readable, _, _ = select.select([self.line], [], [], PATIENCE_S)
        try:
            return bool(readable) and self.line.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.line.close()
        os.close(self.arena_fd)
        self.mailbox.close()


@pytest.fixture(autouse=True)
def worker_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture
def launched() -> Iterator[Launched]:
    launched = start(BARE)
    yield launched
    stop(launched)


@pytest.fixture
def driver(launched: Launched) -> Iterator[Driver]:
    driver = Driver(launched)
    yield driver
    driver.close()


@contextlib.contextmanager
def running(settings: NodeSettings) -> Iterator[tuple[Launched, Driver]]:
    """A cluster with a driver of it."""
    launched = start(settings)
    try:
        with contextlib.closing(Driver(launched)) as driver:
            yield launched, driver
    finally:
        stop(launched)


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def wait_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert not alive, f"still there: {alive}"


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Poll for what only the system can tell; fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        select.select([], [], [], 0.005)
    return result


# ------------------------------------------------------------------------------------------------------- living and ending


def test_a_lease_is_a_forked_process_that_has_said_hello(driver: Driver) -> None:
    lease = driver.lease()
    worker = psutil.Process(lease.pid)
    assert worker.parent() in family(driver.launched.process.pid)
    assert os.getpgid(lease.pid) == lease.pid, "a group of its own, so that it can be ended with all that it starts"
    log = Path(driver.welcome.log_directory, f"worker-{lease.pid}.log")
    wait_for(lambda: log.read_text() == f"worker {lease.pid} is here\n", "the worker's first line in its log")


def test_every_process_maps_the_same_arena(driver: Driver) -> None:
    assert os.fstat(driver.arena_fd).st_size == driver.welcome.arena_bytes == 2**20
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(driver.arena_fd, 0)


def test_the_head_answers_in_the_same_process(driver: Driver) -> None:
    (node,) = driver.ask("nodes", Address(driver.launched.node, HEAD))
    assert node["node_id"] == driver.launched.node.hex()
    assert node["is_head"]
    assert driver.ask("store")["capacity"] == 2**20


def test_an_embedded_cluster_ends_with_its_last_driver_and_leaves_nothing(launched: Launched) -> None:
    first, second = Driver(launched), Driver(launched)
    first.lease()
    processes = family(launched.process.pid)
    first.close()
    second.lease(2)
    second.close()
    assert launched.process.wait(PATIENCE_S) == 0
    wait_gone(processes)
    assert not os.path.exists(launched.directory)
    assert not os.path.exists(first.welcome.log_directory)


def test_sigterm_ends_a_cluster_in_order(launched: Launched, driver: Driver) -> None:
    processes = family(launched.process.pid)
    os.kill(launched.process.pid, signal.SIGTERM)
    assert launched.process.wait(PATIENCE_S) == 0
    wait_gone(processes)
    assert driver.hangs_up_seen()
    assert not os.path.exists(launched.directory)


def test_a_viewer_may_end_a_cluster_and_does_not_keep_it(launched: Launched) -> None:
    viewer = Driver(launched, role="viewer")
    viewer.send(m.DrainNode("nbray stop"))
    assert launched.process.wait(PATIENCE_S) == 0
    viewer.close()


def test_nothing_outlives_a_killed_daemon_and_its_driver_sees_it(launched: Launched, driver: Driver) -> None:
    driver.lease()
    processes = family(launched.process.pid)
    assert len(processes) >= 3
    os.kill(launched.process.pid, signal.SIGKILL)
    assert driver.hangs_up_seen()
    launched.process.wait()
    wait_gone(processes)
    # Another start on this machine may have been quicker.
    rundir.clean_stale()
    assert not os.path.exists(launched.directory)
    assert not os.path.exists(driver.welcome.log_directory)


def test_a_cluster_that_was_started_to_stay_stays_after_its_drivers() -> None:
    with running(msgspec.structs.replace(BARE, keep=True)) as (launched, first):
        worker = psutil.Process(first.lease().pid)
        first.line.shutdown(socket.SHUT_RDWR)
        wait_gone([worker])
        with contextlib.closing(Driver(launched)) as second:
            assert second.lease().pid != worker.pid
    assert not os.path.exists(launched.directory)


# ----------------------------------------------------------------------------------------------------------------- deaths


def test_a_crash_is_told_with_its_signal_and_the_python_stack(driver: Driver) -> None:
    lease = driver.lease()
    driver.send(m.CancelTask(bytes(16)), lease.worker)
    death = driver.expect(m.LeaseLost).death
    assert (death.signal, death.pid, death.oom) == (signal.SIGSEGV, lease.pid, False)
    assert "Segmentation fault" in death.log_tail
    assert "bare_worker.py" in death.log_tail
    assert driver.lease(2).pid != lease.pid, "another takes its place"


def test_a_worker_that_prints_without_end_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRAY_LOG_BYTES", "2000")
    with running(BARE) as (_, driver):
        lease = driver.lease()
        driver.send(m.DefineFunction(bytes(16), "x" * 5000 + "the end", b"", 0), lease.worker)
        log = Path(driver.welcome.log_directory, f"worker-{lease.pid}.log")
        kept = Path(f"{log}.1")
        wait_for(lambda: kept.exists() and kept.stat().st_size and log.stat().st_size == 0, "the log to be rotated")
        assert kept.read_text().endswith("the end\n")
        assert kept.stat().st_size == 2000


def test_what_a_worker_has_started_ends_with_it(driver: Driver) -> None:
    lease = driver.lease()
    driver.send(m.RecallTasks(driver.id, 1), lease.worker)
    started = wait_for(psutil.Process(lease.pid).children, "the worker's child")
    os.kill(lease.pid, signal.SIGKILL)
    assert driver.expect(m.LeaseLost).death.signal == signal.SIGKILL
    wait_gone(started)


def has_started(driver: Driver) -> tuple[psutil.Process, list[psutil.Process]]:
    """A zygote, and two processes that a worker of it has started; the second hides."""
    lease = driver.lease()
    zygote = psutil.Process(psutil.Process(lease.pid).ppid())
    driver.send(m.RecallTasks(driver.id, 1), lease.worker)

    def seen() -> list[psutil.Process]:
        found = [each for each in zygote.children(recursive=True) if each.name() == "sleep"]
        return found if len(found) == 2 else []

    return zygote, wait_for(seen, "what the worker has started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_workers_have_started_ends_with_the_daemon_wherever_it_hides(launched: Launched, driver: Driver, number: int) -> None:
    _, started = has_started(driver)
    os.kill(launched.process.pid, number)
    launched.process.wait(PATIENCE_S)
    wait_gone(started)


def test_what_workers_have_started_ends_with_their_zygote_unless_it_hides(driver: Driver) -> None:
    zygote, started = has_started(driver)
    (hidden,) = [each for each in started if "1001" in each.cmdline()]
    zygote.kill()
    driver.expect(m.LeaseLost)
    wait_gone([each for each in started if each != hidden])
    hidden.kill()
    wait_gone([hidden])


def test_the_zygote_s_death_is_its_workers_death_and_another_takes_over(driver: Driver) -> None:
    lease = driver.lease()
    worker = psutil.Process(lease.pid)
    os.kill(worker.ppid(), signal.SIGKILL)
    death = driver.expect(m.LeaseLost).death
    assert "forked it was killed" in death.reason
    wait_gone([worker])
    assert psutil.pid_exists(driver.lease(2).pid)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("tests.node.bare_worker:refuse_to_start", "libgone.so"),
        ("tests.node.there_is_no_such_module:run", "No module named 'tests.node.there_is_no_such_module'"),
    ],
)
def test_workers_that_cannot_start_are_one_clear_error(entry: str, said: str) -> None:
    with running(msgspec.structs.replace(BARE, entry=entry)) as (_, driver):
        driver.send(m.RequestLease(1, driver.address, m.Shape(to_amounts({"CPU": 1})), job=driver.id))
        assert said in driver.expect(m.LeaseRefused).failure.message


DRIVER_PROCESS = """
import os, sys, signal
from nbray.ids import Address, new_process_id
from nbray.wire import lifeline, messages as m
from nbray.wire.mailbox import Mailbox
directory, node, forks = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3] == "forks"
me = new_process_id()
line, _, _ = lifeline.connect(directory, lifeline.hello("driver", me))
if forks and os.fork() == 0:
    os.close(1)  # and holds a copy of the lifeline, not of what the test reads
    signal.pause()
mailbox = Mailbox(Address(node, me), directory)
mailbox.send(Address(node, node), m.RequestLease(1, mailbox.address, m.Shape({"CPU": 10000}), job=me))
print(mailbox.receive(20)[0].pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("forks", ["forks", "forks not"])
def test_a_killed_driver_s_work_is_ended_also_when_a_child_of_it_holds_its_lifeline(driver: Driver, forks: str) -> None:
    arguments = [driver.launched.directory, driver.launched.node.hex(), forks]
    with subprocess.Popen([sys.executable, "-c", DRIVER_PROCESS, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        children = psutil.Process(process.pid).children()
        process.kill()
        wait_gone([worker])
        for child in children:
            child.kill()
    jobs = {job["job_id"]: job for job in driver.ask("jobs", Address(driver.launched.node, HEAD))}
    assert sorted(job["state"] for job in jobs.values()) == ["ENDED", "RUNNING"]


# ------------------------------------------------------------------------------------------------------ unwelcome visitors


def dial(directory: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"{directory}/{rundir.LIFELINE}")
    connection.settimeout(PATIENCE_S)
    return connection


def hang_up_is_seen(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


GOOD = msgspec.msgpack.encode(lifeline.hello("driver", b"somebody"))
GARBAGE = {
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "random": bytes(range(256)),
    "too long": bytes(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "pickle": b"cos\nsystem\n(S'touch canary'\ntR.",
    "json": b'{"role": "driver"}',
    "another message": msgspec.msgpack.encode(m.DrainNode("die")),
    "deep nesting": b"\x91" * 1000,
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "a hello cut short": GOOD[:-3],
    "a hello and more": GOOD + b"x",
    "a number for a name": msgspec.msgpack.encode(["Hello", 1, 2, 3, 4, 5, 6, 7]),
    "an id too short": GOOD.replace(b"\xc4\x08somebody", b"\xc4\x03som"),
}


@pytest.mark.parametrize("what", list(GARBAGE))
def test_garbage_is_hung_up_on_and_the_daemon_lives(launched: Launched, driver: Driver, what: str) -> None:
    assert GARBAGE[what] != GOOD
    with dial(launched.directory) as connection:
        connection.send(GARBAGE[what])
        assert hang_up_is_seen(connection)
    assert driver.lease().pid
    assert launched.process.poll() is None


def test_who_says_nothing_does_not_keep_others_out(launched: Launched, driver: Driver) -> None:
    silent = [dial(launched.directory) for _ in range(200)]
    other = Driver(launched)
    assert other.lease().pid
    other.close()
    for connection in silent:
        connection.close()


def test_who_comes_and_goes_at_once_leaves_nothing_open(launched: Launched, driver: Driver) -> None:
    daemon = psutil.Process(launched.process.pid)
    driver.lease()
    before = daemon.num_fds()
    for _ in range(300):
        dial(launched.directory).close()
    Driver(launched).close()
    wait_for(lambda: daemon.num_fds() <= before + 2, "the daemon to close what others closed")


def test_descriptors_sent_along_with_a_hello_are_closed(launched: Launched, driver: Driver) -> None:
    daemon = psutil.Process(launched.process.pid)
    driver.lease()
    before = daemon.num_fds()
    with dial(launched.directory) as connection, Path(os.devnull).open("rb") as gift:
        socket.send_fds(connection, [b"junk"], [gift.fileno()] * 200)
        assert hang_up_is_seen(connection)
    # A worker may be starting meanwhile, for a few descriptors; 200 more would be the gift.
    wait_for(lambda: daemon.num_fds() < before + 100, "the daemon to close what it was given")


def test_a_member_that_speaks_on_is_taken_for_dead(launched: Launched, driver: Driver) -> None:
    other = Driver(launched)
    other.line.send(b"more")
    assert other.hangs_up_seen()
    other.close()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("protocol", 99, "speaks protocol 99 and the cluster protocol 1"),
        ("nbray", "9.9.9", f"has nbray 9.9.9 and the cluster nbray {nbray.__version__}"),
        ("python", "3.5.1", "runs Python 3.5.1"),
        ("role", "emperor", "no role 'emperor'"),
        ("role", "worker", "no worker of this id was started here"),
        ("process", HEAD, "is taken"),
    ],
)
def test_who_does_not_fit_is_told_why_and_what_to_do(launched: Launched, driver: Driver, field: str, value: Any, said: str) -> None:
    hello = msgspec.structs.replace(lifeline.hello("driver", new_process_id()), **{field: value})
    with pytest.raises(lifeline.LifelineRefused) as refused:
        lifeline.connect(launched.directory, hello)
    assert said in str(refused.value)
    if field in ("protocol", "nbray", "python"):
        assert f"pip install nbray=={nbray.__version__}" in str(refused.value)


def test_a_process_id_cannot_be_taken_over(launched: Launched, driver: Driver) -> None:
    with pytest.raises(lifeline.LifelineRefused, match="is taken"):
        lifeline.connect(launched.directory, lifeline.hello("driver", driver.id))
    assert driver.lease().pid


def test_a_patch_level_or_a_cloudpickle_that_differs_is_let_in(launched: Launched, driver: Driver) -> None:
    driver.lease()  # the zygote has told its version by now
    ours = lifeline.hello("viewer", new_process_id())
    minor = ".".join(ours.python.split(".")[:2])
    line, welcome, arena_fd = lifeline.connect(
        launched.directory, msgspec.structs.replace(ours, python=f"{minor}.99", cloudpickle="0.1")
    )
    assert "cloudpickle 0.1" in welcome.caution
    assert "pip install cloudpickle==" in welcome.caution
    os.close(arena_fd)
    line.close()


def test_garbage_in_the_mailbox_is_dropped(launched: Launched, driver: Driver) -> None:
    driver.lease()
    outbox = driver.mailbox._outboxes[launched.node]
    for garbage in (b"\x00", bytes(1000), msgspec.msgpack.encode(["NoSuchMessage", 1])):
        outbox.send(garbage)
    driver.send(m.SealObject(bytes(20), driver.address, driver.id, 0, 100))  # of memory that was never lent
    driver.send(m.Answer(1))  # nothing that a node has asked
    assert driver.ask("store")["objects"] == 0
    assert launched.process.poll() is None


NOBODY = 65534


def test_another_user_is_hung_up_on_unheard(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    listener = lifeline.Listener(str(tmp_path))
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/") and path != Path("/tmp"):
            path.chmod(0o755)
    (tmp_path / rundir.LIFELINE).chmod(0o777)
    code = (
        "import os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])\n"
        "print('connected', flush=True)\n"
        "try: print(s.recv(1))\n"
        "except ConnectionResetError: print(b'')\n"
    )
    path = str(tmp_path / rundir.LIFELINE)
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        assert listener.accept_nowait() is None
        assert listener.strangers == 1
        assert process.stdout.readline() == "b''\n"
    listener.close()


def test_a_daemon_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    """The socket is where ours would be, and somebody else answers."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o700)
    place = tmp_path / "r"
    place.mkdir(0o700)
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1])\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY}); s.listen()\n"
        "print('listening', flush=True)\n"
        "c, _ = s.accept(); print(c.recv(100), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, f"{place}/lifeline"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        with pytest.raises(rundir.HostileDirectory, match=f"belongs to uid {NOBODY}"):
            lifeline.connect(str(place), lifeline.hello("driver", new_process_id()))
        assert process.stdout.readline() == "b''\n", "nothing was said to it"


def test_a_runtime_directory_that_others_can_enter_is_not_attached_to(launched: Launched, driver: Driver) -> None:
    os.chmod(launched.directory, 0o755)
    try:
        with pytest.raises(rundir.HostileDirectory, match="0755"):
            lifeline.connect(launched.directory, lifeline.hello("driver", new_process_id()))
    finally:
        os.chmod(launched.directory, 0o700)


def test_attaching_to_what_is_gone_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConnectionError, match="the directory is gone"):
        lifeline.connect(str(tmp_path / "r0123456789"), lifeline.hello("driver", new_process_id()))
    (tmp_path / "r0123456789").mkdir(0o700)
    with pytest.raises(ConnectionError, match="no node daemon answers"):
        lifeline.connect(str(tmp_path / "r0123456789"), lifeline.hello("driver", new_process_id()))


# --------------------------------------------------------------------------------------------------------------- starting


def test_a_start_that_fails_says_what_the_daemon_said() -> None:
    with pytest.raises(NodeStartError, match="resource alice cannot be negative, but is -1"):
        start(msgspec.structs.replace(BARE, resources={"alice": -1}))


def test_a_hostile_runtime_root_stops_the_start(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(NodeStartError) as failed:
        start(msgspec.structs.replace(BARE, root=str(root)))
    assert str(root) in str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert os.listdir(root) == []


def test_stopping_twice_is_stopping_once(launched: Launched) -> None:
    stop(launched)
    stop(launched)


def test_the_daemon_carries_no_library_of_its_users() -> None:
    code = "import sys, nbray.node.life, nbray.head.host; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "cloudpickle", "sqlite3", "asyncio", "subprocess", "psutil", "logging", "http", "email"}
    assert not heavy & set(done.stdout.split())


def test_no_port_is_opened_and_no_secret_place_is_shown(launched: Launched, driver: Driver) -> None:
    driver.lease()
    for process in family(launched.process.pid):
        assert process.net_connections("inet") == []
        assert launched.directory not in " ".join(process.cmdline())
