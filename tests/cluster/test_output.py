"""What tasks print: to the driver, on the right stream, before their result; floods are bounded; C code writes to the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import nbray as ray
from nbray import session
from nbray.config import OUTPUT_LINES_PER_S


@pytest.fixture
def heard():
    """Output events as they came, with the order in which they did."""
    events = []
    session.engine.on_output(events.append)
    return events


def text_of(events, stream="stdout"):
    return "".join(event.text for event in events if event.stream == stream)


def test_what_a_task_printed_is_here_before_its_result(heard):
    @ray.remote
    def speak(i):
        print("line", i)
        return i

    for i in range(50):
        ray.get(speak.remote(i))
        assert f"line {i}\n" in text_of(heard)


def test_streams_are_kept_apart_and_name_task_and_process(heard):
    @ray.remote
    def speak():
        print("out")
        print("err", file=sys.stderr)
        return os.getpid()

    pid = ray.get(speak.remote())
    assert text_of(heard) == "out\n"
    assert text_of(heard, "stderr") == "err\n"
    assert {(event.name, event.pid) for event in heard} == {("speak", pid)}


def test_a_terminal_shows_each_line_under_its_task(script):
    driver = script("""
        import sys
        import nbray as ray
        ray.init(num_cpus=1)

        @ray.remote
        def speak():
            print("one")
            print("two", file=sys.stderr)

        ray.get(speak.remote())
        ray.shutdown()
    """)
    code, out, err = driver.finish()
    assert code == 0
    assert "(speak pid=" in out
    assert out.rstrip().endswith(") one")
    assert err.rstrip().endswith(") two")


def test_a_flood_is_cut_and_counted(heard):
    @ray.remote
    def flood():
        for i in range(20_000):
            print(i)

    ray.get(flood.remote())
    shown = len(text_of(heard).splitlines())
    dropped = sum(event.dropped for event in heard)
    assert shown + dropped == 20_000
    # The limit is per second, and the flood may last for some.
    assert shown <= 10 * OUTPUT_LINES_PER_S


def test_one_endless_line_is_cut(heard):
    @ray.remote
    def endless():
        sys.stdout.write("x" * 20_000_000)

    ray.get(endless.remote())
    assert 0 < len(text_of(heard)) < 1_000_000


def test_bytes_that_are_no_text_and_control_characters_arrive(heard):
    @ray.remote
    def odd():
        print("nul\x00 escape\x1b[31m \udcff ä")

    ray.get(odd.remote())
    assert "nul\x00 escape\x1b[31m" in text_of(heard)


def test_what_child_processes_and_c_code_write_is_in_the_log_of_the_worker():
    @ray.remote
    def shout():
        os.system("echo from a shell")
        subprocess.run(["echo", "from a child"], check=True)
        os.write(1, b"from C\n")
        print("from Python")
        return os.getpid()

    pid = ray.get(shout.remote())
    [log] = Path(session.engine.description()["log_directory"]).glob(f"worker-{pid}.log")
    assert log.read_text().splitlines()[-4:] == ["from a shell", "from a child", "from C", "from Python"]


def test_a_crash_shows_what_was_printed_last():
    @ray.remote(max_retries=0)
    def famous():
        print("these are my last words")
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError, match="these are my last words"):
        ray.get(famous.remote())


def test_an_actor_speaks_under_its_own_repr(heard):
    @ray.remote
    class Named:
        def __repr__(self):
            return "Named(7)"

        def speak(self):
            print("hello")

    ray.get(Named.remote().speak.remote())
    assert [event.name for event in heard if "hello" in event.text] == ["Named(7)"]


def test_threads_of_a_task_are_heard_under_it(heard):
    @ray.remote
    def speak():
        thread = threading.Thread(target=lambda: print("from a thread"))
        thread.start()
        thread.join()

    ray.get(speak.remote())
    assert [event.name for event in heard if "from a thread" in event.text] == ["speak"]


def test_a_task_that_closes_its_streams_does_not_lose_the_worker(heard):
    @ray.remote
    def close():
        sys.stdout.close()
        return "closed"

    @ray.remote
    def speak():
        print("still here")
        return True

    assert ray.get(close.remote()) == "closed"
    assert all(ray.get([speak.remote() for _ in range(10)]))
