"""Actors and the jobs that made them, on a cluster that outlives its drivers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cluster.conditions import is_running, until
from tests.cluster.test_two_nodes import command

CLUSTER = None

HEADER = """
import os, threading, time
import nbray as ray

ray.init(address={address!r}, namespace={namespace!r})

@ray.remote
class Keeper:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)
        return self.notes, os.getpid()

    def child(self):
        self.kept = Keeper.remote()
        return ray.get(self.kept.note.remote("child"))[1]

def stay():
    threading.Event().wait(60)

def look_up(name, **where):
    try:
        return ray.get(ray.get_actor(name, **where).note.remote("found"))
    except ValueError as error:
        return str(error)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster as `nbray start` makes it."""
    said = command("start", "--head", "--port", "0", "--num-cpus", "2")
    found = re.search(r"at (\S+) \(pid", said)
    assert found
    yield found[1]
    command("stop")


@pytest.fixture
def driver(address, script):
    """Start a driver of a namespace (None: its own)."""

    def start(text: str, namespace: str | None = None):
        return script(HEADER.format(address=address, namespace=namespace) + text)

    return start


def test_a_detached_actor_outlives_its_driver_with_what_it_keeps_and_the_others_do_not(driver):
    first = driver(
        """
kept = Keeper.options(name="kept", lifetime="detached").remote()
plain = Keeper.options(name="plain").remote()
print("pids", ray.get(kept.note.remote("first"))[1], ray.get(kept.child.remote()), ray.get(plain.note.remote("first"))[1])
""",
        "team",
    )
    kept, child, plain = map(int, first.line("pids").split())
    assert first.finish()[0] == 0
    until(lambda: not is_running(plain), "the plain actor ended with its driver")
    second = driver('print("found", look_up("kept")[0]); print("not", look_up("plain")); ray.kill(ray.get_actor("kept"))', "team")
    assert second.line("found") == "['first', 'found']"
    assert "Failed to look up actor with name 'plain'" in second.line("not")
    assert second.finish()[0] == 0
    until(lambda: not is_running(kept), "it was killed")
    until(lambda: not is_running(child), "what it kept ended with it")


def test_a_detached_actor_outlives_a_driver_that_was_killed(driver):
    first = driver(
        """
safe = Keeper.options(name="safe", lifetime="detached").remote()
print("pid", ray.get(safe.note.remote(1))[1])
stay()
""",
        "team",
    )
    pid = int(first.line("pid"))
    first.process.kill()
    second = driver('print("found", look_up("safe")[1]); ray.kill(ray.get_actor("safe"))', "team")
    assert int(second.line("found")) == pid
    until(lambda: not is_running(pid), "it was killed")


def test_jobs_without_a_namespace_do_not_see_each_others_names(driver):
    first = driver(
        """
keeper = Keeper.options(name="mine").remote()
ray.get(keeper.note.remote("first"))
print("space", ray.get_runtime_context().namespace)
stay()
"""
    )
    space = first.line("space")
    second = driver(f'print("own", look_up("mine")); print("named", look_up("mine", namespace={space!r})[0])')
    assert "Failed to look up actor with name 'mine'" in second.line("own")
    assert second.line("named") == "['first', 'found']"
    assert second.finish()[0] == 0


def test_the_name_of_an_actor_that_went_with_its_driver_can_be_used_again(driver):
    make = 'a = Keeper.options(name="again").remote(); print("notes", ray.get(a.note.remote(1))[0], flush=True); os._exit(1)'
    wait = "while 'Failed' not in str(look_up('again')): time.sleep(0.05)\n"
    for text in (make, wait + make):
        one = driver(text, "team")
        assert one.line("notes") == "[1]"
        one.finish()
