"""What this node has, and how close its memory is to the limit, as a container sees it.

Each number comes with the phrase that says where it came from, because "why does it see 2 CPUs?" is the first question in
a container: "2 CPUs: cpu.max". The environment wins (CPU_LIMIT and MEM_LIMIT are what JupyterHub sets), then the cgroup.
`root` is where /proc and /sys are found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import NamedTuple

#: A limit above this is cgroup v1's way to say "none".
_UNLIMITED = 1 << 60


class Found(NamedTuple):
    """A number and where it came from."""

    value: int
    where: str


class Usage(NamedTuple):
    """Memory in use, counted as the kernel's out-of-memory killer would, and the limit; both in bytes."""

    used: int
    limit: int


def cpu_count(root: str = "") -> Found:
    """Whole CPUs that this process may use, at least 1."""
    if (told := _number(os.environ.get("CPU_LIMIT"))) is not None and told >= 1:
        return _cpus(int(told), "CPU_LIMIT")
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root)
    if quota is not None and quota[0] < affinity:
        # Rounded up, as most runtimes do: half a CPU still runs one worker.
        return _cpus(max(1, math.ceil(quota[0])), quota[1])
    return _cpus(affinity, "sched_getaffinity" if hasattr(os, "sched_getaffinity") else "os.cpu_count")


def _cpus(count: int, where: str) -> Found:
    return Found(count, f"{count} CPU{'s' if count != 1 else ''}: {where}")


def memory_limit(root: str = "") -> Found:
    """Bytes of memory that this process and its children may use together."""
    total = _meminfo(root).get("MemTotal", 0) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = Found(total, "MemTotal")
    if (told := _number(os.environ.get("MEM_LIMIT"))) is not None and 0 < told < found.value:
        found = Found(int(told), "MEM_LIMIT")
    for directory, limit_file, _ in _memory_groups(root):
        limit = _number(_read(f"{directory}/{limit_file}"))
        if limit is not None and 0 < limit < min(found.value, _UNLIMITED):
            found = Found(int(limit), limit_file)
    return Found(found.value, f"{found.value / 2**30:.1f} GiB: {found.where}")


def cpu_seconds(root: str = "") -> float:
    """CPU time that was spent so far by everybody who shares the CPUs of `cpu_count`: our cgroup where its quota decides how many
    these are, else all processes on the CPUs that we may use."""
    quota = _cpu_quota(root)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    if quota is not None and quota[0] < len(allowed):
        for controller, name, unit_s in (("cpu", "cpu.stat", 1e-6), ("cpuacct", "cpuacct.usage", 1e-9)):
            for directory in _ancestors(root, controller, name):
                text = _read(f"{directory}/{name}") or ""
                spent = _fields(text).get("usage_usec") if name == "cpu.stat" else _number(text)
                if spent is not None:
                    return spent * unit_s
    ticks = 0
    for line in (_read(f"{root}/proc/stat") or "").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in allowed:
            ticks += sum(map(int, fields[:3])) + sum(map(int, fields[5:8]))  # without what was idle, or waited for a disk
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_usage(root: str = "") -> Usage:
    """The tightest of the machine and every cgroup above us: the one whose limit is nearest."""
    facts = _meminfo(root)
    tightest = Usage(facts.get("MemTotal", 1) - facts.get("MemAvailable", 0), max(1, facts.get("MemTotal", 1)))
    for directory, limit_file, usage_file in _memory_groups(root):
        limit, used = _number(_read(f"{directory}/{limit_file}")), _number(_read(f"{directory}/{usage_file}"))
        if limit is None or used is None or not 0 < limit < _UNLIMITED:
            continue
        # Clean page cache counts as used but goes before anybody is killed.
        usage = Usage(max(0, int(used) - _reclaimable(directory)), int(limit))
        if usage.used / usage.limit > tightest.used / tightest.limit:
            tightest = usage
    return tightest


def oom_kills(root: str = "") -> int:
    """How often the kernel has killed for memory in our cgroups so far, or on the machine where there are none.

    A rise beside a SIGKILL says who did it.
    """
    total, counted = 0, False
    for directory, _, _ in _memory_groups(root):
        for name in ("memory.events.local", "memory.events", "memory.oom_control"):
            if (text := _read(f"{directory}/{name}")) is not None:
                total, counted = total + _fields(text).get("oom_kill", 0), True
                break
    return total if counted else _fields(_read(f"{root}/proc/vmstat") or "").get("oom_kill", 0)


def _cpu_quota(root: str) -> tuple[float, str] | None:
    """The smallest CPU quota of the cgroups that we are in, in CPUs, with the name of its file."""
    found: list[tuple[float, str]] = []
    for directory in _ancestors(root, "cpu", "cpu.max"):
        quota, _, period = (_read(f"{directory}/cpu.max") or "").partition(" ")
        if (limit := _number(quota)) is not None and (span := _number(period)):
            found.append((limit / span, "cpu.max"))
    for directory in _ancestors(root, "cpu", "cpu.cfs_quota_us"):
        limit, span = _number(_read(f"{directory}/cpu.cfs_quota_us")), _number(_read(f"{directory}/cpu.cfs_period_us"))
        if limit is not None and limit > 0 and span:
            found.append((limit / span, "cpu.cfs_quota_us"))
    return min(found, default=None)


def _memory_groups(root: str) -> Iterator[tuple[str, str, str]]:
    """(directory, name of the limit's file, name of the usage's file) of every memory cgroup that we are in."""
    for directory in _ancestors(root, "memory", "memory.max"):
        yield directory, "memory.max", "memory.current"
    for directory in _ancestors(root, "memory", "memory.limit_in_bytes"):
        yield directory, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _ancestors(root: str, controller: str, wanted: str) -> Iterator[str]:
    """Directories of our cgroup and those above it that have the file `wanted`. In a container the path that the kernel
    names may lie outside; then what is mounted at the top is our own group."""
    for line in (_read(f"{root}/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = f"{root}/sys/fs/cgroup/{controller}" if controllers else f"{root}/sys/fs/cgroup"
        while True:
            directory = f"{base}{path}".rstrip("/")
            if os.path.exists(f"{directory}/{wanted}"):
                yield directory
            if path in ("", "/"):
                break
            path = os.path.dirname(path)


def _reclaimable(directory: str) -> int:
    facts = _fields(_read(f"{directory}/memory.stat") or "")
    return facts.get("total_inactive_file", facts.get("inactive_file", 0))


def _meminfo(root: str) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    facts = {}
    for line in (_read(f"{root}/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        facts[name] = int(rest.split()[0]) * 1024
    return facts


def _fields(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
