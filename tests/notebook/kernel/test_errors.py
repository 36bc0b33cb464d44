"""Every mistake is one clear error under its cell, and the session goes on."""

from __future__ import annotations

import re
from typing import Any

import pytest

Kernel = Any


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_an_error_shows_the_line_of_the_cell_and_nothing_of_ours(kernel: Kernel) -> None:
    cell = kernel.run("%%remote\nvalue = 0\nvalue = 1 / value")
    shown = plain(cell.traceback)
    assert "ZeroDivisionError" in cell.error["ename"]
    assert 'File "<cell In[' in shown
    assert "line 3" in shown
    assert "value = 1 / value" in shown
    assert "nbray/" not in shown
    assert "run_cell_magic" not in shown
    assert "✗ failed" in (cell.updates or cell.displays)[-1]["text/plain"]  # updated, if the cell took a while


def test_it_can_be_caught_as_what_it_is(kernel: Kernel) -> None:
    kernel.ok(
        "try:\n    get_ipython().run_cell_magic('remote', '', '1 / 0')\nexcept ZeroDivisionError as error:\n    caught = str(error)"
    )
    assert "division by zero" in kernel.eval("caught")


def test_functions_of_other_cells_show_their_lines_too(kernel: Kernel) -> None:
    kernel.ok("def risky(v):\n    return 1 / v  # the risky line")
    assert "the risky line" in plain(kernel.run("%%remote\nrisky(0)").traceback)


def test_tb_shows_the_same_again(kernel: Kernel) -> None:
    first = kernel.run("%%remote\nraise KeyError('gone')")
    assert plain(kernel.run("%tb").traceback) == plain(first.traceback)


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("%%remote --tiemout 3\n1", "UsageError", "did you mean --timeout?"),
        ("%%remote nonsense\n1", "UsageError", "code goes on the lines below"),
        ("%%remote\nx = = 3", "SyntaxError", "x = = 3"),
        ("%%remote\nfor i in range(3):\nprint(i)", "IndentationError|SyntaxError", "print(i)"),
        ("modle = 1", None, ""),
        ("%%remote\nok = 1\nmodel.fit()", "NameError", "line 3 of the cell reads model"),
        ("%%remote\nmodel", "NameError", "did you mean modle?"),
        ("%%remote -i absent\n1", "NameError", "--in names absent"),
        ("%%remote -o y\na = 1\nb = 2", "NameError", "the cell never assigns y, which --out names; it assigns a, b"),
        ("%%remote -o y\na = 1\nif a > 1:\n    y = 2", "NameError", "the cell never assigned y, which --out names; it assigned a"),
        ("import threading\nbad = {'a': [1, threading.Lock()]}", None, ""),
        ("%%remote\nbad", "TypeError", "bad['a'][1]"),
        ("%%remote --dry-run\nbad", "TypeError", "bad['a'][1]"),
        ("%%remote -o c\nimport threading\nc = threading.Lock()", "TypeError", "the output c does not pickle"),
        ("%%remote\n%timeit 1", "UsageError", "%timeit works in the notebook, not in a worker"),
        ("%%remote --each i=1/0\ni", "ZeroDivisionError", "raised by --each i=1/0"),
        ("%%remote --each i=5\ni", "TypeError", "raised by --each i=5"),
        ("%%remote --handle h -o h\nh = 1", "UsageError", "would be the name of two things"),
        ("%%remote --on nowhere\n1", "UsageError", "no actor, node or resource is called that"),
        ("%%remote --num-gpus 0.00001\n1", "ValueError", "0.0001"),
        ("%%remote\nraise SystemExit(3)", "WorkerCrashedError|SystemExit|RayTaskError.*", ""),
        ("%nbray stauts", "UsageError", "did you mean %nbray status?"),
        ("%nbray status now", "UsageError", "takes nothing after it"),
        ("%nbray cancel modle", "UsageError", "is not the handle of a job"),
        ("%nbray config --dry-run", "UsageError", "--dry-run"),
        ("%nbray config -o a", "UsageError", "belongs to one cell"),
        ("%nbray logs no-such-file", "UsageError", "no log file"),
        ("%remote", "UsageError", "takes an expression"),
    ],
)
def test_a_mistake_is_one_clear_error_and_the_session_goes_on(kernel: Kernel, code: str, name: str | None, said: str) -> None:
    cell = kernel.run(code)
    if name is None:
        assert cell.error is None
        return
    shown = plain(cell.traceback + cell.stderr)
    assert re.fullmatch(name, cell.reply["ename"]), shown
    assert said in shown
    assert "nbray/notebook" not in shown, "the way through our own code is nobody's business"
    assert kernel.ok("%%remote\n6 * 7").value == "42"


def test_the_failing_item_is_named_and_the_others_are_kept(kernel: Kernel) -> None:
    for chunk in ("1", "2"):
        cell = kernel.run(f"%%remote --each reading=[3,1,0,4] -o share --chunk {chunk}\nshare = 12 / reading")
        shown = plain(cell.traceback)
        assert "ZeroDivisionError" in cell.error["ename"]
        assert "reading = 0 (item 2 of --each) failed, 1 of 4 in all; the other 3 are kept" in shown
        assert "share = 12 / reading" in shown
        kernel.ok("job = %nbray last")
        assert kernel.eval("[i['share'] if isinstance(i, dict) else type(i.cause).__name__ for i in job.items()]") == [
            4.0, 12.0, "ZeroDivisionError", 3.0,
        ]  # fmt: skip


def test_writing_to_a_shared_input_says_how_to_write(kernel: Kernel) -> None:
    kernel.ok("import numpy as np\nshared = np.zeros(100_000)\ndef fill(a):\n    a[:] = 1")
    assert "x = x.copy()" in plain(kernel.run("%%remote\nfill(shared)").traceback)


def test_html_in_names_and_values_is_escaped(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --name <script>alert(1)</script>\n1")
    assert "<script>" not in cell.displays[-1]["text/html"]
    kernel.ok("r = nbray.put('<script>')")
    assert "<script>" not in kernel.ok("r").result["text/html"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("nbray.get(5)", "ValueError: Invalid type of object refs"),
        ("nbray.remote(lambda: 1).options(num_cpus=-1).remote()", "num_cpus cannot be negative"),
        ("import threading\nnbray.put(threading.Lock())", "value does not pickle"),
        ("nbray.get_actor('nobody')", "no live actor has that name"),
        ("nbray.remote(lambda: 1).remote(1, 2)", "too many positional arguments"),
    ],
)
def test_errors_of_the_api_show_the_cell_alone(kernel: Kernel, code: str, said: str) -> None:
    shown = plain(kernel.run(code).traceback)
    assert said in shown
    assert "----> " in shown
    assert "/nbray/" not in shown
    assert "cloudpickle" not in shown


def test_user_code_below_ours_and_errors_that_we_did_not_mean_are_shown_whole(kernel: Kernel) -> None:
    kernel.ok("class Bad:\n    def __reduce__(self):\n        raise RuntimeError('in reduce')")
    assert "in reduce" in plain(kernel.run("nbray.put(Bad())").traceback)
    assert "/nbray/" in plain(kernel.run("nbray.util.ActorPool(5)").traceback), "not a raise of ours: a report needs every frame"


def test_a_plain_task_that_failed_shows_the_lines_of_its_cell(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef careless(v):\n    return 1 / v  # the careless line")
    shown = plain(kernel.run("nbray.get(careless.remote(0))").traceback)
    assert re.search(r"Cell In\[\d+\], line 3, in careless\n    return 1 / v  # the careless line", shown)
    assert "ipykernel_" not in shown


def test_what_does_not_load_in_the_notebook_says_so_and_stays_in_the_cluster(kernel: Kernel) -> None:
    kernel.ok("class Stranger:\n    def __reduce__(self):\n        return eval, ('1 / 0',)")
    cell = kernel.ok("%%remote\nstranger, fine = Stranger(), 2\nStranger()")
    assert "the output stranger does not load in the notebook (ZeroDivisionError: division by zero)" in cell.notes
    assert "the value of the last line does not load" in cell.notes
    assert kernel.eval("(type(stranger).__name__, fine)") == ("ObjectRef", 2)
    named = kernel.run("%%remote -o stranger\nstranger = Stranger()")
    assert "nbray/" not in plain(named.traceback)
    assert "the output stranger does not load" in plain(named.traceback)


def test_an_actor_shows_itself(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote(num_cpus=0)\nclass Shown: pass\nshown_actor = Shown.remote()")
    assert "Shown" in kernel.ok("%%remote --on shown_actor\nself").value


@pytest.mark.parametrize(
    ("asked", "said"), [("--help", "lineage"), ("help", "lineage"), ("debug --help", "--rerun"), ("plan -h", "--cores")]
)
def test_who_asks_a_word_for_help_is_told_what_it_takes(kernel: Kernel, asked: str, said: str) -> None:
    cell = kernel.ok(f"%nbray {asked}")
    assert said in "".join(str(each) for each in cell.displays)
