"""What a container lets us see, and that we say where we saw it. The files are real ones in the kernel's formats."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbray.node import monitor
from nbray.node.load import Load
from nbray.node.logs import TAIL_BYTES, rotate, tail

GIB = 2**30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:   12582912 kB\n"
Machine = Callable[..., str]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a root with these files (path: text), on a machine of 16 GiB with 12 available."""
    monkeypatch.delenv("CPU_LIMIT", raising=False)
    monkeypatch.delenv("MEM_LIMIT", raising=False)

    def make(**files: str) -> str:
        for path, text in {"proc/meminfo": MEMINFO, **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return str(tmp_path)

    return make


def v2(**files: str) -> dict[str, str]:
    return {"proc/self/cgroup": "0::/pod/box\n", **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}}


def test_without_limits_the_affinity_and_the_machine_s_memory_count(machine: Machine) -> None:
    root = machine()
    assert monitor.cpu_count(root).value == len(os.sched_getaffinity(0))
    assert monitor.cpu_count(root).where.endswith("sched_getaffinity")
    assert monitor.memory_limit(root) == (16 * GIB, "16.0 GiB: MemTotal")


def test_a_quota_of_half_a_cpu_is_one_worker_s_worth(machine: Machine) -> None:
    root = machine(**v2(**{"pod/box/cpu.max": "50000 100000\n"}))
    assert monitor.cpu_count(root) == (1, "1 CPU: cpu.max")


def test_no_quota_is_no_limit(machine: Machine) -> None:
    root = machine(**v2(**{"pod/box/cpu.max": "max 100000\n"}))
    assert monitor.cpu_count(root).where.endswith("sched_getaffinity")


def test_the_quota_of_an_older_kernel_is_read_too(machine: Machine) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/box\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    root = machine(**files)
    if len(os.sched_getaffinity(0)) > 1:
        assert monitor.cpu_count(root) == (1, "1 CPU: cpu.cfs_quota_us")


def test_the_hub_s_word_wins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine()
    monkeypatch.setenv("CPU_LIMIT", "3.5")
    monkeypatch.setenv("MEM_LIMIT", str(2 * GIB))
    assert monitor.cpu_count(root) == (3, "3 CPUs: CPU_LIMIT")
    assert monitor.memory_limit(root) == (2 * GIB, "2.0 GiB: MEM_LIMIT")


def test_nonsense_from_the_hub_is_no_limit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine()
    monkeypatch.setenv("CPU_LIMIT", "lots")
    monkeypatch.setenv("MEM_LIMIT", "0")
    assert monitor.cpu_count(root).where.endswith("sched_getaffinity")
    assert monitor.memory_limit(root).value == 16 * GIB


def test_the_tightest_limit_on_the_way_up_counts(machine: Machine) -> None:
    root = machine(**v2(**{"pod/box/memory.max": "max", "pod/memory.max": str(4 * GIB)}))
    assert monitor.memory_limit(root) == (4 * GIB, "4.0 GiB: memory.max")


def test_an_older_kernel_s_way_to_say_unlimited_is_no_limit(machine: Machine) -> None:
    files = {"proc/self/cgroup": "8:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}
    assert monitor.memory_limit(machine(**files)).value == 16 * GIB


def test_clean_page_cache_is_not_pressure(machine: Machine) -> None:
    files = v2(
        **{
            "pod/box/memory.max": str(4 * GIB),
            "pod/box/memory.current": str(3 * GIB),
            "pod/box/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
        }
    )
    root = machine(**files)
    assert monitor.memory_usage(root) == (4 * GIB, 16 * GIB), "the machine is as full as the container: 1 of 4"
    (Path(root) / "sys/fs/cgroup/pod/box/memory.stat").write_text("inactive_file 0\n")
    assert monitor.memory_usage(root) == (3 * GIB, 4 * GIB)


def test_the_kernel_s_kills_are_counted(machine: Machine) -> None:
    root = machine(**v2(**{"pod/box/memory.max": "max", "pod/box/memory.events": "low 0\noom 3\noom_kill 2\n"}))
    assert monitor.oom_kills(root) == 2


def test_without_cgroups_the_machine_s_kills_are_counted(machine: Machine) -> None:
    assert monitor.oom_kills(machine(**{"proc/vmstat": "nr_free_pages 1\noom_kill 4\n"})) == 4


def test_this_machine_s_own_files_are_understood() -> None:
    assert monitor.cpu_count().value >= 1
    usage = monitor.memory_usage()
    assert 0 < usage.used < usage.limit
    assert usage.limit <= monitor.memory_limit().value or "MEM_LIMIT" in monitor.memory_limit().where


# ------------------------------------------------------------------------------------------------------------------- logs


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(100)))
    assert tail(str(log), 3) == "line 97\nline 98\nline 99"


def test_a_log_of_any_length_is_read_in_bounded_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(2**40)  # sparse: reading it all would take hours
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert tail(str(log)).endswith("the end")


def test_one_endless_line_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (3 * TAIL_BYTES))
    assert tail(str(log)) == "x" * TAIL_BYTES


def test_a_log_does_not_drive_the_terminal_that_shows_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\x00 \xff 50 %\r100 %\n")
    assert tail(str(log)) == "red ok \N{REPLACEMENT CHARACTER} 50 %\n100 %"


def test_no_log_has_no_tail(tmp_path: Path) -> None:
    assert tail(str(tmp_path / "gone")) == ""


def test_a_long_log_is_emptied_under_its_writer_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(writer, b"old " * 100 + b"the end of the first part")
    assert rotate(str(log), 25)
    assert Path(f"{log}.1").read_bytes() == b"the end of the first part"
    os.write(writer, b"second part")
    os.close(writer)
    assert log.read_bytes() == b"second part"
    assert not rotate(str(log), 25), "it is short"
    assert not rotate(str(tmp_path / "gone"), 25)


def test_a_log_that_was_replaced_by_a_link_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * 100)
    (tmp_path / "log").symlink_to(precious)
    assert not rotate(str(tmp_path / "log"), 10)
    assert precious.stat().st_size == 100


def test_cpu_time_is_the_cgroups_where_its_quota_decides_and_the_machines_elsewhere(machine: Machine) -> None:
    first = min(os.sched_getaffinity(0))
    stat = f"cpu  1 1 1 1 1 1 1 1 0 0\ncpu{first} 100 20 30 5000 40 5 6 7 0 0\ncpu99999 9 9 9 9 9 9 9 9 0 0\n"
    ticks = os.sysconf("SC_CLK_TCK")
    assert monitor.cpu_seconds(machine(**{"proc/stat": stat})) == (100 + 20 + 30 + 5 + 6 + 7) / ticks
    ours = {"pod/box/cpu.max": "50000 100000\n", "pod/box/cpu.stat": "usage_usec 2500000\nuser_usec 1\n"}
    assert monitor.cpu_seconds(machine(**v2(**ours))) == 2.5


def test_the_load_of_a_node_tells_of_processes_that_are_there(machine: Machine) -> None:
    of_one = "7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0 0 0 0"
    root = machine(**{"proc/7/stat": of_one, "proc/7/statm": "900 300 100 1 0 1 0", "proc/stat": ""})
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    told = Load(0).reading([7, 8], root)
    assert told["processes"] == {7: [200 / ticks, 200 * page]}
    assert (told["memory_used"], told["memory_limit"], told["gpus"]) == (4 * GIB, 16 * GIB, [])
