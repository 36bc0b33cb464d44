"""The checks of conftest.py, each on a small suite that has what the check is there to find."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with this conftest.py, impatient, and a `cluster/` below it."""
    source = CONFTEST.read_text(encoding="utf-8").replace("GONE_WITHIN_S = 10.0", "GONE_WITHIN_S = 0.5")
    pytester.makeconftest(source.replace('pytest_plugins = ["pytester"]', ""))
    pytester.mkdir("cluster")
    monkeypatch.delenv("CI", raising=False)
    return pytester


def run(suite: pytest.Pytester, body: str) -> pytest.RunResult:
    (suite.path / "cluster" / "test_it.py").write_text(body, encoding="utf-8")
    return suite.runpytest_subprocess("-p", "no:cacheprovider", "cluster")


def test_a_test_that_cleans_up_passes(suite: pytest.Pytester) -> None:
    result = run(suite, "import subprocess\ndef test_it():\n    subprocess.run(['true'], check=True)\n")
    result.assert_outcomes(passed=1)


def test_a_process_left_running_fails_its_test_by_name(suite: pytest.Pytester) -> None:
    body = "import subprocess\ndef test_it():\n    subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    result = run(suite, body)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["test_it left behind:", "*process *: sleep 600"])


def test_an_orphan_is_found_and_ended(suite: pytest.Pytester) -> None:
    body = "import subprocess\ndef test_it():\n    subprocess.run('setsid sleep 601 & echo $! > pid', shell=True, check=True)\n"
    result = run(suite, body)
    result.assert_outcomes(passed=1, errors=1)
    pid = int((suite.path / "pid").read_text())
    # Whoever adopted it may be slow to take its exit status: a zombie has ended too.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_runtime_directory_left_fails(suite: pytest.Pytester) -> None:
    body = """
import os, pathlib
def test_it():
    (pathlib.Path(os.environ["XDG_RUNTIME_DIR"]) / "nbray" / "abc").mkdir(parents=True)
"""
    result = run(suite, body)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*directory */nbray/abc"])


def test_open_files_left_fail(suite: pytest.Pytester) -> None:
    result = run(suite, "import os\ndef test_it():\n    for _ in range(20):\n        os.pipe()\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*40 file descriptors: *pipe*"])


def test_what_a_module_shares_may_live_until_its_last_test(suite: pytest.Pytester) -> None:
    body = """
import subprocess, pytest
@pytest.fixture(scope="module")
def shared():
    process = subprocess.Popen(["sleep", "602"])
    yield process
    process.kill()
    process.wait()
def test_one(shared): pass
def test_two(shared): pass
"""
    run(suite, body).assert_outcomes(passed=2)


def test_ci_refuses_a_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import pytest\ndef test_it():\n    pytest.skip('no browser')\n"
    run(suite, body).assert_outcomes(skipped=1)
    monkeypatch.setenv("CI", "true")
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was skipped, which CI does not accept: *no browser*"])


def test_ci_refuses_a_module_that_skips_itself(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run(suite, "import pytest\npytest.importorskip('no_such_module')\n")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*was skipped, which CI does not accept: *no_such_module*"])


def test_ci_accepts_a_skip_for_want_of_a_gpu(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    run(suite, "import pytest\ndef test_it():\n    pytest.skip('GPU: none here')\n").assert_outcomes(skipped=1)
