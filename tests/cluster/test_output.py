"""What tasks print: to the driver, on the right stream, before their result; floods are bounded; C code and children are heard."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nbray as ray
from nbray import session
from nbray.config import OUTPUT_LINES_PER_S
from tests.cluster.conditions import until


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


def test_what_child_processes_and_c_code_write_is_heard_with_the_task_in_its_order(heard):
    @ray.remote
    def shout():
        print("first")
        os.system("echo from a shell")
        print("then")
        subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
        os.write(1, "from C, ä".encode() + b" \xff\n")
        os.write(1, b"at the end without a newline")

    ray.get(shout.remote())
    said = "first\nfrom a shell\nthen\nfrom a child\nfrom C, ä \ufffd\nat the end without a newline"
    assert text_of(heard) == said
    assert {event.name for event in heard} == {"shout"}


def test_a_child_is_heard_while_its_task_runs_and_after_it_has_ended(heard, tmp_path):
    gate = tmp_path / "gate"

    @ray.remote
    def starts():
        waits = f"echo begun; while [ ! -e {gate} ]; do sleep 0.02; done; echo opened"
        child = subprocess.Popen(["sh", "-c", waits])
        while not (tmp_path / "seen").exists():
            time.sleep(0.02)
        return child.pid

    started = starts.remote()
    until(lambda: "begun" in text_of(heard), "the child is heard", within_s=30)
    (tmp_path / "seen").touch()
    ray.get(started)
    gate.touch()
    until(lambda: "opened" in text_of(heard), "the child is heard again", within_s=30)
    assert {event.name for event in heard} == {"starts"}


def test_a_process_that_the_task_forked_is_heard(heard):
    @ray.remote
    def forks():
        child = multiprocessing.get_context("fork").Process(target=lambda: print("from a fork"))
        child.start()
        child.join()

    ray.get(forks.remote())
    assert text_of(heard) == "from a fork\n"


def test_of_calls_that_run_side_by_side_nobody_can_say_which_started_the_child(heard):
    @ray.remote(max_concurrency=2)
    class Both:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def speak(self, alone):
            if not alone:
                self.barrier.wait()
                subprocess.run(["echo", "one of us"], check=True)
                self.barrier.wait()
            else:
                subprocess.run(["echo", "me"], check=True)

    both = Both.remote()
    ray.get([both.speak.remote(False), both.speak.remote(False)])
    ray.get(both.speak.remote(True))
    assert text_of(heard) == "one of us\none of us\nme\n"


def test_bytes_can_be_written_and_may_be_cut_anywhere(heard):
    @ray.remote
    def binary():
        for byte in "größe\n".encode():
            sys.stdout.buffer.write(bytes([byte]))
        sys.stderr.buffer.write(memoryview(b"err\n"))
        sys.stdout.buffer.flush()
        sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
        print("after")

    ray.get(binary.remote())
    assert text_of(heard) == "größe\nafter\n"
    assert text_of(heard, "stderr") == "err\n"


def test_a_child_that_prints_without_end_is_cut(heard):
    @ray.remote
    def flood():
        subprocess.run(["sh", "-c", "seq 1 2000000"], check=True)

    ray.get(flood.remote())
    shown = text_of(heard)
    assert shown.startswith("1\n2\n")
    assert shown.endswith("2000000\n")
    assert len(shown) < 4_000_000


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
