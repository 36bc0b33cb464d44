"""A cell under `%%remote` does what the cell alone would have done, option by option."""

from __future__ import annotations

import re
from typing import Any

import pytest

Kernel = Any


@pytest.fixture(scope="module", autouse=True)
def variables(kernel: Kernel) -> None:
    """What cells of these tests find in the notebook."""
    kernel.ok("import numpy as np\nx = 20\ndef double(v):\n    return v * 2")
    kernel.ok("@nbray.remote(num_cpus=0)\nclass Holder:\n    def __init__(self):\n        self.n = 5\nholder = Holder.remote()")


def line_of(cell: Any) -> str:
    """The line under a cell, as text. A cell that takes a while has shown another before, which is updated."""
    return str((cell.updates or cell.displays)[-1]["text/plain"])


def test_variables_go_there_and_come_back_and_the_last_value_shows(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\ny = double(x) + 2\ny + 1")
    assert cell.value == "43"
    assert kernel.eval("y") == 42
    assert "✓ done · In[" in line_of(cell)


def test_the_line_under_a_cell_is_read_out(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --view line\n1")
    assert 'role="status"' in (cell.updates or cell.displays)[-1]["text/html"]


def test_it_really_runs_elsewhere(kernel: Kernel) -> None:
    assert kernel.ok("%%remote\nthere = os.getpid()").error is None
    assert kernel.eval("there != os.getpid()") is True


def test_a_semicolon_keeps_the_last_value_away(kernel: Kernel) -> None:
    assert kernel.ok("%%remote\n1 + 1;").value is None


def test_a_line_magic_gives_the_value(kernel: Kernel) -> None:
    kernel.ok("z = %remote double(4)")
    assert kernel.eval("z") == 8


def test_functions_and_classes_of_the_cell_live_on_in_the_notebook(kernel: Kernel) -> None:
    kernel.ok("%%remote\ndef inner(v):\n    return v * K\ndef outer(v):\n    return inner(v) + 1\n"
              "class C:\n    def m(self):\n        return inner(2)\nK = 3\nc = C()")  # fmt: skip
    kernel.ok("K = 10")  # they see the notebook's variables, as if they had been defined in it
    assert kernel.eval("(outer(2), c.m(), C().m(), isinstance(c, C))") == (21, 20, 20, True)


def test_functions_of_the_notebook_see_what_the_cell_assigns(kernel: Kernel) -> None:
    kernel.ok("scale = 1\ndef scaled(v):\n    return v * scale")
    assert kernel.ok("%%remote\nscale = 5\nscaled(2)").value == "10"


def test_modules_travel_by_name(kernel: Kernel) -> None:
    kernel.ok("import json as j")
    kernel.ok("%%remote\nimport fractions\ntext = j.dumps([1])")
    assert kernel.eval("text") == "[1]"
    assert kernel.eval("fractions.Fraction(1, 2) == 0.5") is True


def test_what_the_cell_deletes_is_gone(kernel: Kernel) -> None:
    kernel.ok("doomed = 1")
    kernel.ok("%%remote\ndel doomed")
    assert kernel.eval("'doomed' in globals()") is False


def test_a_branch_that_did_not_run_leaves_the_variable_alone(kernel: Kernel) -> None:
    kernel.ok("kept = 'old'")
    kernel.ok("%%remote\nif x < 0:\n    kept = 'new'")
    assert kernel.eval("kept") == "old"


def test_changes_in_place_come_back_and_arrays_are_writable(kernel: Kernel) -> None:
    kernel.ok("big = np.arange(200_000.0)\nd = {'a': [big, 1]}")
    kernel.ok("%%remote\nbig[0] = 5\nd['b'] = big + 1")
    assert kernel.eval("(float(big[0]), big.flags.writeable, d['b'].flags.writeable, d['a'][0].flags.writeable)") == (
        5.0, True, True, True,
    )  # fmt: skip


def test_a_large_array_is_sent_once_while_it_is_the_same_and_again_when_edited_in_place(kernel: Kernel) -> None:
    kernel.ok("steady = np.arange(1_000_000.0)")
    assert "in 8.0 MB" in line_of(kernel.ok("%%remote\nsteady.sum()"))
    assert "in 8.0 MB" not in line_of(kernel.ok("%%remote\nsteady.sum()"))
    kernel.ok("steady[7], steady[9] = steady[9], steady[7]")
    again = kernel.ok("%%remote\nfloat(steady[7])")
    assert "in 8.0 MB" in line_of(again)
    assert again.value == "9.0"


def test_large_text_is_sent_once(kernel: Kernel) -> None:
    kernel.ok("text = 'x' * 500_000")
    assert "in 500 kB" in line_of(kernel.ok("%%remote\nlen(text)"))
    assert "in 500 kB" not in line_of(kernel.ok("%%remote\nlen(text)"))


def test_named_inputs_and_outputs_are_the_only_ones(kernel: Kernel) -> None:
    kernel.ok("p, q = 1, 2")
    kernel.ok("%%remote -i p,q -o r\nr = p + globals()['q']\nprivate = 1")
    assert kernel.eval("(r, 'private' in globals())") == (3, False)


def test_an_input_changed_by_a_call_comes_back_when_it_is_named(kernel: Kernel) -> None:
    kernel.ok("xs = [1]")
    kernel.ok("%%remote -o xs\nxs.append(2)")
    assert kernel.eval("xs") == [1, 2]


def test_each_item_runs_by_itself_and_results_keep_their_order(kernel: Kernel) -> None:
    kernel.ok("seen = 0")
    cell = kernel.ok("%%remote --each seed=range(7) -o squares,seen --chunk 3\nseen += 1\nsquares = seed * seed\nsquares + 1")
    assert kernel.eval("(squares, seen)") == ([0, 1, 4, 9, 16, 25, 36], [1] * 7)
    assert cell.value == "[1, 2, 5, 10, 17, 26, 37]"
    assert "7 items in 3 tasks" in line_of(cell)


def test_what_every_item_imports_is_the_module_and_no_list_of_it(kernel: Kernel) -> None:
    kernel.ok("%%remote --each i=range(3)\nimport fractions\nhalf = fractions.Fraction(i, 2)")
    assert kernel.eval("str(half[1] * fractions.Fraction(4))") == "2"


def test_each_over_nothing_gives_empty_lists(kernel: Kernel) -> None:
    kernel.ok("%%remote --each i=[] -o none_of_it\nnone_of_it = i")
    assert kernel.eval("none_of_it") == []


def test_references_stay_there_and_go_into_later_cells_as_values(kernel: Kernel) -> None:
    kernel.ok("%%remote --refs\nones = np.ones(500_000)")
    assert kernel.eval("type(ones).__name__") == "ObjectRef"
    assert kernel.ok("%%remote\nfloat(ones.sum())").value == "500000.0"
    assert kernel.eval("float(nbray.get(ones).sum())") == 500_000.0


def test_references_per_item(kernel: Kernel) -> None:
    kernel.ok("%%remote --refs --each i=range(3)\ntwice = i * 2")
    assert kernel.eval("nbray.get(twice)") == [0, 2, 4]


def test_a_reference_of_the_user_stays_a_reference(kernel: Kernel) -> None:
    kernel.ok("mine = nbray.put(41)\npair = [mine, 1]")
    assert kernel.ok("%%remote\nnbray.get(mine) + nbray.get(pair[0]) - 41").value == "41"


def test_an_output_over_the_limit_stays_and_says_so(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --max-fetch 1MB\nlarge = np.ones(500_000)\nsmall = 1")
    assert kernel.eval("(type(large).__name__, small)") == ("ObjectRef", 1)
    assert "large (4.0 MB) stays in the cluster" in cell.notes


def test_an_automatic_output_that_does_not_pickle_stays_and_says_so(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote\nimport threading\nlock = threading.Lock()\nfine = 1")
    assert "lock stays in the worker" in cell.notes
    assert kernel.eval("(fine, 'lock' in globals())") == (1, False)


def test_a_last_value_that_does_not_pickle_shows_as_it_reads_there(kernel: Kernel) -> None:
    value = kernel.ok("%%remote\nimport threading\nthreading.Lock()").value
    assert value is not None
    assert "unlocked _thread.lock object" in value


def test_await_works_at_the_top(kernel: Kernel) -> None:
    kernel.ok("%%remote\nimport asyncio\nawait asyncio.sleep(0)\nawaited = 3")
    assert kernel.eval("awaited") == 3


def test_shell_lines_run_in_the_worker(kernel: Kernel) -> None:
    kernel.ok("word = 'hello'")
    cell = kernel.ok("%%remote\n!echo {word} $word '$1'\nlines = !printf 'a\\nb\\n'")
    assert cell.stdout == "hello hello $1\n"
    assert kernel.eval("lines") == ["a", "b"]


def test_a_cell_runs_inside_an_actor_and_its_variables_stay_there(kernel: Kernel) -> None:
    kernel.ok("%%remote --on holder\nimport threading\nguard = threading.Lock()\ncounter = self.n + x")
    kernel.ok("%%remote --on holder\nwith guard:\n    counter += 1")
    kernel.ok("counter = -1")  # the notebook's own, which the actor's wins over
    assert kernel.ok("%%remote --on holder -o counter\ncounter").value == "26"
    assert kernel.eval("counter") == 26
    assert kernel.ok("%%remote --on holder -i counter\ncounter + 1").value == "27"


def test_a_named_actor_can_be_meant_by_its_name(kernel: Kernel) -> None:
    kernel.ok("keeper = Holder.options(name='the-keeper').remote(); nbray.get(keeper.__ray_ready__.remote())")
    assert kernel.ok("%%remote --on the-keeper\nself.n").value == "5"
    kernel.ok("del keeper")


def test_a_cell_can_be_pinned_to_a_node(kernel: Kernel) -> None:
    kernel.ok("node = nbray.nodes()[0]['NodeID']")
    for where in (kernel.eval("node[:8]"), kernel.eval("nbray.nodes()[0]['NodeManagerHostname']")):
        assert kernel.ok(f"%%remote --on {where}\nnbray.get_runtime_context().get_node_id() == node").value == "True"


def test_names_and_tags_reach_the_task(kernel: Kernel) -> None:
    cell = kernel.ok("%%remote --num-cpus 2 --name mine --tag night\nnbray.get_runtime_context().get_task_name()")
    assert cell.value == "'mine [night]'"


@pytest.mark.parametrize("wish", ["--num-cpus 5", "--num-gpus 1", "--memory 100TB", "--resources tpu=1"])
def test_a_cell_that_nothing_can_run_says_so_while_it_waits(kernel: Kernel, wish: str) -> None:
    waiting = kernel.start(f"%%remote {wish}\n1")
    kernel.until(lambda: bool(waiting.notes), "the reason")
    kernel.interrupt()
    kernel.until(lambda: waiting.idle, "the prompt")
    assert waiting.error["ename"] == "KeyboardInterrupt"


def test_a_failing_cell_is_run_again_only_when_asked(kernel: Kernel) -> None:
    body = "n = len(os.listdir(folder))\nopen(f'{folder}/{n}', 'w').close()\nassert n >= 2, n\nn"
    kernel.ok("import tempfile; folder = tempfile.mkdtemp()")
    assert kernel.run(f"%%remote\n{body}").error is not None
    assert kernel.eval("len(os.listdir(folder))") == 1
    assert kernel.ok(f"%%remote --retries 3\n{body}").value == "2"


def test_a_dry_run_lists_and_sends_nothing(kernel: Kernel) -> None:
    before = kernel.eval("len(nbray.timeline())")
    cell = kernel.ok("%%remote --dry-run\nresult = double(x)")
    assert "double" in cell.displays[0]["text/plain"]
    assert "result" in cell.displays[1]["text/plain"]
    assert kernel.eval("(len(nbray.timeline()), 'result' in globals())") == (before, False)


def test_a_dry_run_says_what_travels_and_whether_it_could_run(kernel: Kernel) -> None:
    kernel.ok("import numpy as np; table = np.zeros(10**6)")
    cell = kernel.ok("%%remote --dry-run --each i=range(6) --chunk 2\nnp.sum(table) + i")
    assert "once per node" in cell.displays[0]["text/plain"]
    said = cell.displays[1]["text/plain"]
    assert "6 items in 3 tasks" in said
    assert "CPU=1" in said
    assert "on 1 of 1 node, 2 at a time" in said
    asked = kernel.ok("%%remote --dry-run --env A=1 --pip numpy --timeout 5 --profile cpu\n1").displays[1]["text/plain"]
    for words in ("environment: A=1, pip install numpy", "cancelled after: 5.0 s", "profile: cpu"):
        assert words in asked
    said = kernel.ok("%%remote --dry-run --num-cpus 64\n1").displays[1]["text/plain"]
    assert "nowhere: no node has CPU=64 (most: 2)" in said


def test_a_large_value_in_many_items_is_worth_a_word_before_it_is_sent(kernel: Kernel) -> None:
    kernel.ok("import numpy as np; table = np.zeros(10**6)")
    code = "%%remote --each pair=[(table,i) for i in range(4)]\npair[1]".replace("pair=[", '"pair=[').replace("]\n", ']"\n')
    assert (
        "table (8.0 MB) is in 4 items of --each" in kernel.ok(code.replace("--each", "--dry-run --each")).displays[1]["text/plain"]
    )
    assert "nbray.put(table)" in kernel.ok(code).notes
    kernel.ok("@nbray.remote\ndef width(a): return len(a)")
    cell = kernel.ok("for _ in range(4): nbray.get(width.remote(table))")
    assert cell.notes.count("table_ref = nbray.put(table)") == 1


def test_a_handle_is_awaitable_and_knows_its_state(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg --handle job\nhandled = 3\nhandled * 2")
    assert kernel.ok("(await job, job.result(), job.status, job.done(), handled)").value == "(6, 6, 'done', True, 3)"
    assert "done" in kernel.ok("%nbray last").value


def test_a_background_cell_is_cancelled_through_its_handle(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg --handle job\nimport time\ntime.sleep(600)")
    kernel.ok("job.cancel()")
    failed = kernel.run("job.result()")
    assert failed.error["ename"] == "TaskCancelledError"
    assert kernel.eval("job.status") == "cancelled"


def test_a_result_that_is_not_there_in_time_leaves_the_job_running(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg --handle job\nimport time\ntime.sleep(600)")
    assert kernel.run("job.result(0.01)").error["ename"] == "GetTimeoutError"
    assert kernel.eval("job.status") == "running"
    kernel.ok("%nbray cancel job")
    assert kernel.run("job.result()").error is not None


def test_a_timeout_cancels_the_cell(kernel: Kernel) -> None:
    cell = kernel.run("%%remote --timeout 0.2\nimport time\ntime.sleep(600)")
    assert cell.error["ename"] == "GetTimeoutError"
    assert "timed out" in line_of(cell)
    kernel.ok("%%remote --bg --timeout 0.2 --handle job\nimport time\ntime.sleep(600)")
    assert kernel.run("job.result()").error["ename"] == "GetTimeoutError"


def test_what_ended_before_the_timeout_is_kept(kernel: Kernel) -> None:
    kernel.ok("%%remote --each i=range(2)\n1")  # the workers are there
    cell = kernel.run(
        "%%remote --each i=range(3) -o kept_ones --chunk 1 --timeout 3\nimport time\ntime.sleep(600 * (i == 2))\nkept_ones = i"
    )
    assert "1 item cancelled; the other 2 are kept: %nbray last, then .items()" in cell.traceback
    assert "3 items, 1 cancelled" in line_of(cell) or "2 of 3 tasks done" in line_of(cell)
    assert kernel.ok("job = %nbray last\n[i['kept_ones'] for i in job.items()[:2]]").value == "[0, 1]"


def test_a_failed_cell_is_not_reported_again_when_its_handle_goes(kernel: Kernel) -> None:
    cell = kernel.run("%%remote\n1 / 0")
    kernel.ok("import gc; get_ipython()._nbray_extension.notebook.jobs.clear(); _ = gc.collect()")
    kernel.ok("%%remote\n1")
    assert "nbray::" not in cell.stderr


def test_the_name_of_each_is_no_input(kernel: Kernel) -> None:
    kernel.ok("import threading; held = threading.Lock()")
    assert kernel.ok("%%remote --each held=range(2) -i held\nheld").value == "[0, 1]"


def test_the_line_can_be_left_away(kernel: Kernel) -> None:
    assert kernel.ok("%%remote --view none\nquiet = 1").displays == []


def test_configured_defaults_hold_until_they_are_reset(kernel: Kernel) -> None:
    kernel.ok("%nbray config --view none")
    assert kernel.ok("%%remote\nquiet = 2").displays == []
    assert len(kernel.ok("%%remote --view line\nquiet = 3").displays) == 1
    assert "set here" in kernel.ok("%nbray config").displays[0]["text/plain"]
    kernel.ok("%nbray config --reset")
    assert len(kernel.ok("%%remote\nquiet = 4").displays) == 1


def test_tasks_of_magics_are_found_by_their_cell_and_line(kernel: Kernel) -> None:
    kernel.ok("%%remote --name whole\n1")
    kernel.ok("x = 1\ny = %remote x + 1")
    shown = kernel.ok("%nbray tasks").displays[0]["text/plain"]
    assert re.search(r"^whole .*In\[\d+\] line 1", shown, re.MULTILINE)
    assert re.search(r"In\[\d+\] line 2", shown)
    assert "interactiveshell" not in shown


def has_card(cell: Any) -> bool:
    return any("application/vnd.nbray.run.v1+json" in data for data in cell.displays + cell.updates)


def test_a_card_can_come_at_once_and_one_can_be_asked_for_where_none_is_by_default(kernel: Kernel) -> None:
    assert has_card(kernel.ok("%%remote --progress-after 0\n1"))
    assert not has_card(kernel.ok("%%remote --progress-after 60\ntime.sleep(0.4)"))
    kernel.ok("%nbray config --view line")
    assert has_card(kernel.ok("%%remote --view card --progress-after 0\n1"))
    kernel.ok("%nbray config --reset")


def test_every_word_of_nbray_answers(kernel: Kernel) -> None:
    answers = {"": "what it does", "status": "CPUs", "tasks": "FINISHED", "actors": "Holder", "objects": "objects"}
    for word, said in {**answers, "logs": "worker-", "config": "num-cpus"}.items():
        shown = kernel.ok(f"%nbray {word}")
        assert any(said in data["text/plain"] for data in shown.displays), word


def test_a_top_level_await_of_a_plain_reference_works(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote\ndef one():\n    return 1")
    assert kernel.ok("await one.remote()").value == "1"
    assert kernel.ok("import asyncio\nawait asyncio.gather(*[one.remote() for _ in range(3)])").value == "[1, 1, 1]"


def test_the_namespace_keeps_nothing_of_ours(kernel: Kernel) -> None:
    assert kernel.eval("[n for n in globals() if 'nbray' in n and n != 'nbray']") == []


def test_handles_keep_neither_inputs_nor_outputs(kernel: Kernel) -> None:
    large = "{r.hex() for r in nbray.session.engine.references() if (nbray.session.engine.facts_of(r).get('size') or 0) > 10**6}"
    before = kernel.eval(large) or set()
    kernel.ok("import gc, weakref\nhuge = np.ones(200_000)\nseen = weakref.ref(huge)")
    kernel.ok("%%remote -o made\nmade = huge * 2\nhuge")
    kernel.ok("Out.clear(); del huge, made, _\n_ = __ = ___ = None; gc.collect()")
    assert kernel.eval("seen() is None") is True
    assert kernel.eval(large + " or 'none'") in (before, "none")


def test_a_cell_has_variables_and_modules_of_its_own(kernel: Kernel) -> None:
    assert kernel.ok("%%remote --env COLOUR=green --env \"SHAPE=a circle\"\nos.environ['COLOUR'], os.environ['SHAPE']").value == (
        "('green', 'a circle')"
    )
    assert kernel.ok("%%remote\nos.environ.get('COLOUR')").value is None
    failed = kernel.run("%%remote --pip=--no-index --pip no-such-thing\n1")
    assert "No matching distribution found" in str(failed.error)


def test_modules_beside_the_notebook_that_are_edited_reach_the_next_cell(kernel: Kernel) -> None:
    kernel.ok("import pathlib; beside = pathlib.Path('edited_beside.py')\n_ = beside.write_text('def f(): return 1\\n')")
    assert kernel.ok("%%remote\nimport edited_beside\nedited_beside.f()").value == "1"
    kernel.ok("_ = beside.write_text('def f(): return 2\\n')")
    assert kernel.ok("%%remote\nimport edited_beside\nedited_beside.f()").value == "2"
    kernel.ok("beside.unlink()")


def test_what_a_cell_assigns_comes_back_also_when_it_is_the_input_changed(kernel: Kernel) -> None:
    kernel.ok(
        "class Model:\n    def fit(self):\n        self.x = 1\n        return self\nmodel, same = Model(), [1, 2]\nkept = same"
    )
    kernel.ok("%%remote\nmodel = model.fit()\nif not same:\n    same = []\nelse:\n    same = same")
    assert kernel.eval("model.x") == 1
    assert kernel.eval("same is kept") is True, "what has not changed is not replaced by a copy"


def test_a_cell_that_exits_says_why(kernel: Kernel) -> None:
    cell = kernel.run("%%remote\nimport sys\nsys.exit('bad config')")
    assert "bad config" in cell.text + cell.traceback


def test_an_actor_that_finds_no_cpu_says_so_in_the_timeout(kernel: Kernel) -> None:
    kernel.ok("@nbray.remote(num_cpus=1)\nclass A:\n    def go(self): return 1\nactors = [A.remote() for _ in range(3)]")
    cell = kernel.run("nbray.get([a.go.remote() for a in actors], timeout=3)")
    kernel.ok("del actors")
    assert "actor A: Needs num_cpus=1" in cell.traceback
