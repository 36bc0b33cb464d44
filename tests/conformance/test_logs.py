"""What tasks print, as a script's terminal shows it: whose it is, on which stream, folded, and nothing lost at the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

from tests.conformance.subject import ray

CLUSTER = {"num_cpus": 1}
NBRAY = ray.__name__ == "nbray"


def script(text: str, init: str = "num_cpus=2", **environment: str) -> tuple[str, str]:
    """Run a script of its own; (stdout, stderr)."""
    start = f"import {ray.__name__} as ray, os, sys, time\nray.init({init})\n"
    env = {**os.environ, "RAY_DEDUP_LOGS_AGG_WINDOW_S": "60", "RAY_COLOR_PREFIX": "0", **environment}
    command = [sys.executable, "-c", start + textwrap.dedent(text)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stderr
    strip = re.compile(r"\x1b\[[0-9;]*m")
    return strip.sub("", done.stdout), strip.sub("", done.stderr)


def test_lines_name_who_printed_them_on_the_stream_they_were_printed_to():
    out, err = script("""
        @ray.remote
        def speaks():
            print("to stdout")
            print("to stderr", file=sys.stderr)

        @ray.remote
        class Plain:
            def __init__(self):
                print("from init")

            def speak(self):
                print("from a plain actor")

        @ray.remote
        class Named:
            def __init__(self):
                self.name = "seven"

            def __repr__(self):
                return f"Named({self.name})"

            def speak(self):
                print("from a named actor")

        ray.get(speaks.remote())
        plain, named = Plain.remote(), Named.remote()
        ray.get([plain.speak.remote(), named.speak.remote()])
        time.sleep(1)
    """)
    assert re.search(r"^\(speaks pid=\d+\) to stdout$", out, re.MULTILINE)
    assert re.search(r"^\(speaks pid=\d+\) to stderr$", err, re.MULTILINE)
    assert "to stderr" not in out
    assert re.search(r"^\(Plain pid=\d+\) from init$", out, re.MULTILINE)
    assert re.search(r"^\(Plain pid=\d+\) from a plain actor$", out, re.MULTILINE)
    assert re.search(r"^\(Named\(seven\) pid=\d+\) from a named actor$", out, re.MULTILINE)


SAME = """
    @ray.remote(num_cpus=0)
    class Speaker:
        def speak(self, text):
            print(text)

    speakers = [Speaker.remote() for _ in range(4)]
    for speaker in speakers:
        ray.get(speaker.speak.remote("all alike"))
    time.sleep({pause})
"""


def test_what_several_processes_print_alike_is_folded_and_nothing_stays_so_at_the_end():
    out, _ = script(SAME.format(pause=0.5 if NBRAY else 2))
    lines = [line for line in out.splitlines() if "all alike" in line]
    assert re.fullmatch(r"\(Speaker pid=\d+\) all alike", lines[0])
    assert re.match(r"\(Speaker pid=\d+\) all alike \[repeated 3x across cluster\]", lines[1])
    assert "DEDUP_LOGS=0" in lines[1]
    assert len(lines) == 2


def test_folding_can_be_turned_off():
    out, _ = script(SAME.format(pause=1), RAY_DEDUP_LOGS="0")
    assert out.count("all alike") == 4
    assert "repeated" not in out


def test_log_to_driver_false_shows_nothing():
    out, err = script(SAME.format(pause=1), init="num_cpus=2, log_to_driver=False")
    assert "all alike" not in out + err


UNSEEN = """
    @ray.remote
    def fails():
        raise ValueError("nobody looked")

    fails.remote()
    @ray.remote
    def waits():
        time.sleep(1)
    ray.get(waits.remote())
    time.sleep(1)
"""


def test_the_error_of_a_reference_that_nobody_asked_is_said_once_and_can_be_suppressed():
    said = "".join(script(UNSEEN))
    assert len(re.findall(r"Unhandled error \(suppress with '\w*RAY_IGNORE_UNHANDLED_ERRORS=1'\)", said)) == 1
    assert said.count("ValueError: nobody looked") == 1
    assert "nobody looked" not in "".join(script(UNSEEN, RAY_IGNORE_UNHANDLED_ERRORS="1"))


def test_children_and_bytes_are_shown_with_the_task():
    out, _ = script("""
        @ray.remote
        def speaks():
            os.system("echo from a child")
            sys.stdout.buffer.write(b"from bytes\\n")
            sys.stdout.flush()

        ray.get(speaks.remote())
        time.sleep(0 if ray.__name__ == "nbray" else 3)
    """)
    assert re.search(r"\(speaks pid=\d+\) from a child\n", out)
    assert re.search(r"\(speaks pid=\d+\) from bytes\n", out)
