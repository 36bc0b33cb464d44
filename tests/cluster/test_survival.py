"""The notebook never dies: processes of the cluster are killed, and the driver, its threads and its variables go on."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import nbray as ray
from nbray import session
from nbray.exceptions import NodeDiedError, RayActorError, RayError
from tests.cluster.conditions import is_running, lines_of, until

CLUSTER = None


@pytest.fixture
def two_cpus():
    ray.init(num_cpus=2)
    yield
    ray.shutdown()


def daemon():
    return session.engine.description()["daemon_pid"]


def descendants(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def zygote():
    [found] = [c.pid for c in psutil.Process(daemon()).children() if "nbray.node.zygote" in " ".join(c.cmdline())]
    return found


def workers():
    return [c.pid for c in psutil.Process(zygote()).children()]


def note(path, word):
    """One line, whole, whoever else writes."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


def victims(which):
    return {"daemon": lambda: [daemon()], "zygote": lambda: [zygote()], "every worker": workers}[which]()


@pytest.mark.parametrize("which", ["daemon", "zygote", "every worker"])
def test_two_hundred_tasks_finish_though_this_is_killed_in_their_midst(which, two_cpus, tmp_path):
    log = tmp_path / "log"

    @ray.remote
    def work(i):
        note(log, i)
        time.sleep(0.002)
        return i * i

    @ray.remote
    def add(a, b):
        return a + b

    me, before = os.getpid(), descendants(daemon())
    refs = [work.remote(i) for i in range(200)]
    sums = [add.remote(refs[i], refs[i + 1]) for i in range(0, 200, 2)]
    until(lambda: len(lines_of(log)) > 40, "the work is in its midst")
    killed = victims(which)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert ray.get(refs, timeout=60) == [i * i for i in range(200)]
    assert ray.get(sums, timeout=60) == [i * i + (i + 1) ** 2 for i in range(0, 200, 2)]
    assert os.getpid() == me
    assert ray.get(work.remote(3), timeout=30) == 9
    until(lambda: not any(map(is_running, killed)), "the killed are gone")
    if which == "daemon":
        until(lambda: not any(map(is_running, before)), "what belonged to the killed daemon is gone")
    with session.engine.runtime.locked() as state:
        state.check()


def test_the_daemon_may_be_killed_again_and_again(two_cpus):
    @ray.remote
    def one():
        return 1

    for _ in range(4):
        old = daemon()
        os.kill(old, signal.SIGKILL)
        # The workers outlive it by a moment, in which they may still answer.
        until(lambda gone=old: ray.get(one.remote(), timeout=30) == 1 and daemon() != gone, "another daemon is in its place")


def test_actors_and_stored_objects_of_a_killed_daemon_say_that_it_is_gone(two_cpus):
    @ray.remote
    class Counter:
        def count(self):
            return 1

    @ray.remote
    def make():
        return bytes(1_000_000)

    actor = Counter.remote()
    ray.get(actor.count.remote())
    stored, small, made = ray.put(bytes(1_000_000)), ray.put("small"), make.remote()
    ray.wait([made])
    os.kill(daemon(), signal.SIGKILL)
    assert ray.get(small) == "small"
    with pytest.raises(RayError, match="only copy"):
        ray.get(stored, timeout=30)
    with pytest.raises((RayActorError, NodeDiedError)):
        ray.get(actor.count.remote(), timeout=30)
    assert len(ray.get(made, timeout=30)) == 1_000_000  # made again by its task
    assert ray.get(Counter.remote().count.remote(), timeout=30) == 1


def test_a_task_without_retries_says_that_its_node_died(two_cpus, tmp_path):
    @ray.remote(max_retries=0)
    def hang():
        note(tmp_path / "log", "began")
        time.sleep(1000)

    ref = hang.remote()
    until(lambda: lines_of(tmp_path / "log"), "the task runs")
    os.kill(daemon(), signal.SIGKILL)
    with pytest.raises(NodeDiedError, match="hang"):
        ray.get(ref, timeout=30)


def test_an_array_read_from_the_store_outlives_the_store(two_cpus):
    array = ray.get(ray.put(np.arange(1_000_000)))
    os.kill(daemon(), signal.SIGKILL)
    ray.get(ray.remote(lambda: 1).remote(), timeout=30)
    assert array[-1] == 999_999
    del array
    gc.collect()


# ------------------------------------------------------------------------------------------ a driver that ends

DRIVER = """
    import os, time
    import nbray as ray
    ray.init(num_cpus=2)

    @ray.remote
    class Actor:
        def pid(self):
            return os.getpid()

    @ray.remote
    def hang():
        time.sleep(1000)

    actor = Actor.remote()
    ray.get(actor.pid.remote())
    kept = ray.put(bytes(10_000_000))
    refs = [hang.remote() for _ in range(4)]
    described = ray.init(ignore_reinit_error=True)
    from nbray import session
    d = session.engine.description()
    print("DIRECTORY", d["directory"])
    print("DAEMON", d["daemon_pid"])
    {end}
"""


@pytest.mark.parametrize("how", ["SIGKILL", "the end of its script", "os._exit", "an exception"])
def test_nothing_of_a_driver_is_left_after(how, script):
    end = {
        "SIGKILL": "time.sleep(1000)",
        "the end of its script": "pass",
        "os._exit": "os._exit(3)",
        "an exception": "raise SystemExit(4)",
    }[how]
    driver = script(DRIVER.format(end=end))
    directory = driver.line("DIRECTORY")
    pid = int(driver.line("DAEMON"))
    try:
        processes = [pid, *descendants(pid)] if how == "SIGKILL" else [pid]
    except psutil.NoSuchProcess:
        processes = [pid]
    if how == "SIGKILL":
        assert len(processes) >= 4
        driver.process.kill()
    driver.finish()
    until(lambda: not any(map(is_running, processes)), "daemon, zygote and workers are gone", within_s=5)
    until(lambda: not Path(directory).exists(), "its runtime directory is gone", within_s=5)


def test_a_driver_interrupted_at_a_hundred_moments_has_whole_books_and_right_results(script):
    driver = script("""
        import os, random, signal, threading, time
        import nbray as ray
        from nbray import session

        ray.init(num_cpus=2)

        @ray.remote
        def double(x):
            return 2 * x

        class Stop(Exception):
            pass

        def interrupt(_number, _frame):
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, signal.default_int_handler)
        ray.get([double.remote(i) for i in range(50)])
        ray.get(ray.put(bytes(200_000)))  # imports numpy: an interrupted import is Python's own affair
        random.seed(1)
        hits = 0
        main = threading.main_thread().ident
        kept = []
        for round_ in range(100):
            armed = threading.Event()

            def shoot(delay=random.random() * 0.01):
                armed.wait()
                time.sleep(delay)
                signal.pthread_kill(main, signal.SIGINT)

            shooter = threading.Thread(target=shoot)
            shooter.start()
            try:
                armed.set()
                while True:
                    refs = [double.remote(i) for i in range(10)]
                    kept.append((refs, [2 * i for i in range(10)]))
                    big = ray.put(bytes(200_000))
                    ray.get(refs)
                    len(ray.get(big))
                    ray.wait(refs, num_returns=3)
            except KeyboardInterrupt:
                hits += 1
            shooter.join()
            with session.engine.runtime.locked() as state:
                state.check()
            if len(kept) > 50:
                for refs, expected in kept:
                    assert ray.get(refs, timeout=30) == expected
                kept.clear()
        for refs, expected in kept:
            assert ray.get(refs, timeout=30) == expected
        assert ray.get([double.remote(i) for i in range(200)], timeout=30) == [2 * i for i in range(200)]
        kept.clear()
        del refs, big
        print("HITS", hits)
        with session.engine.runtime.locked() as state:
            state.check()
        ray.shutdown()
    """)
    code, out, err = driver.finish(120)
    # Where a worker takes more than a second to start, the driver says what it waits for.
    complaints = [line for line in err.splitlines() if not line.startswith("nbray: Needs num_cpus=1;")]
    assert (code, complaints) == (0, []), err
    assert "HITS 100" in out


def test_a_child_made_by_fork_in_the_driver_disturbs_nothing(two_cpus):
    @ray.remote
    def one():
        return 1

    refs = [one.remote() for _ in range(20)]
    if (child := os.fork()) == 0:
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    # One that leaves as Python programs do, through atexit, which has nbray's own shutdown in it.
    if (child := os.fork()) == 0:
        try:
            ray.shutdown()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert ray.get(refs, timeout=30) == [1] * 20
    assert ray.get(one.remote(), timeout=30) == 1


def test_twenty_clusters_one_after_the_other_leave_nothing_in_the_driver():
    def inventory():
        gc.collect()
        maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "nbray-arena" in line]
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(psutil.Process().children(recursive=True)), len(maps)

    @ray.remote
    def array(i):
        return bytes(200_000 + i)

    def cycle():
        ray.init(num_cpus=1)
        assert len(ray.get(array.remote(1))) == 200_001
        ray.put(bytes(300_000))
        ray.shutdown()

    cycle()
    before = inventory()
    for _ in range(20):
        cycle()
    until(lambda: inventory() <= before, f"descriptors, threads, children and mappings are as before: {before}, not {inventory()}")
    assert all(now <= then for now, then in zip(inventory(), before, strict=True)), (before, inventory())


def test_threads_that_submit_during_shutdown_get_an_error_and_end():
    ray.init(num_cpus=2)

    @ray.remote
    def one():
        return 1

    ray.get(one.remote())
    began, errors = threading.Barrier(5), []
    stop = threading.Event()

    def work():
        engine = session.engine
        began.wait()
        try:
            while not stop.is_set() and session.engine is engine:
                ray.get([one.remote() for _ in range(10)], timeout=30)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    began.wait()
    ray.shutdown()
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "a thread hangs in a cluster that is gone"
    ray.shutdown()  # a thread may have started another by its last call
    assert all(isinstance(error, RayError | RuntimeError | ConnectionError) for error in errors), errors


def test_a_get_that_waits_while_another_thread_shuts_down_ends_with_an_error(tmp_path):
    ray.init(num_cpus=1)

    @ray.remote
    def hang():
        note(tmp_path / "log", "began")
        time.sleep(1000)

    ref, errors = hang.remote(), []

    def wait():
        try:
            ray.get(ref)
        except Exception as error:
            errors.append(error)

    until(lambda: lines_of(tmp_path / "log"), "the task runs")
    thread = threading.Thread(target=wait)
    thread.start()
    ray.shutdown()
    thread.join(timeout=20)
    assert not thread.is_alive(), "get waits for ever"
    assert errors


def test_references_of_a_cluster_that_was_shut_down_say_so():
    ray.init(num_cpus=1)
    ref = ray.put(1)
    ray.shutdown()
    ray.init(num_cpus=1)
    with pytest.raises(RayError, match="session"):
        ray.get(ref)
    ray.shutdown()
