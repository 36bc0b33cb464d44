"""`%load_ext nbray` starts nothing; `%unload_ext nbray` leaves nothing; a first use inside a cell is routed like any other."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any

STATE = """
def _state():
    import threading
    ip = get_ipython()
    html = ip.display_formatter.formatters['text/html']
    return {
        'magics': sorted(k for kind in ip.magics_manager.magics.values() for k in kind if k in ('remote', 'nbray')),
        'registry': sorted(k for k in ip.magics_manager.registry if 'bray' in k),
        'matchers': len(ip.Completer.custom_matchers),
        'pre': len(ip.events.callbacks['pre_run_cell']), 'post': len(ip.events.callbacks['post_run_cell']),
        'formatters': sorted(t.__name__ for t in html.type_printers if t.__module__.startswith('nbray')),
        'threads': sorted(t.name for t in threading.enumerate() if 'nbray' in t.name),
        'custom': len(ip.custom_exceptions), 'attributes': sorted(a for a in vars(ip) if 'nbray' in a),
    }
"""


@pytest.fixture(scope="module")
def plain_kernel(bare_kernel: Kernel) -> Kernel:
    bare_kernel.ok(STATE)
    return bare_kernel


def test_loading_shows_one_card_and_starts_nothing(plain_kernel: Kernel) -> None:
    kernel = plain_kernel
    before = kernel.eval("_state()")
    cell = kernel.ok("%load_ext nbray")
    assert len(cell.displays) == 1
    text = cell.displays[0]["text/plain"]
    assert "\n" not in text
    for said in ("nbray 0.", "none yet: starts on first use", "CPU", "%%remote?"):
        assert said in text
    assert "<script" not in cell.displays[0]["text/html"]
    loaded = kernel.eval("_state()")
    assert loaded["threads"] == []
    assert loaded["magics"] == ["nbray", "remote", "remote"]
    assert kernel.eval("__import__('nbray').is_initialized()") is False
    kernel.ok("%reload_ext nbray")
    assert kernel.eval("_state()") == loaded
    kernel.ok("%unload_ext nbray")
    assert kernel.eval("_state()") == before


def test_after_use_unloading_still_leaves_nothing_of_the_notebook_layer(plain_kernel: Kernel) -> None:
    kernel = plain_kernel
    before = kernel.eval("_state()")
    kernel.ok("%load_ext nbray")
    first = kernel.ok(
        "import nbray, os\n@nbray.remote\ndef say(x):\n    print('said', x)\n    return x\n\nnbray.get(say.remote(1))"
    )
    assert first.stdout == "said 1\n"  # also the cell that started the cluster has its output
    kernel.ok("%%remote\nprint('x')\n1")
    kernel.ok("%unload_ext nbray")
    after = kernel.eval("_state()")
    after["threads"] = [name for name in after["threads"] if "output" in name]
    assert after == before
    assert kernel.ok("nbray.get(say.remote(2))").value == "2"
    kernel.ok("%load_ext nbray")
    assert kernel.ok("nbray.get(say.remote(3))").stdout == "said 3\n"
    kernel.ok("nbray.shutdown()")


def test_unloading_twice_or_never_having_loaded_is_no_error(plain_kernel: Kernel) -> None:
    plain_kernel.ok("%unload_ext nbray")
    plain_kernel.ok("import nbray; nbray.unload_ipython_extension(get_ipython())")


def test_the_help_lists_every_option(plain_kernel: Kernel) -> None:
    plain_kernel.ok("%load_ext nbray")
    shown = plain_kernel.run("%%remote?").reply["payload"][0]["data"]["text/plain"]
    for option in ("--in", "--out", "--each", "--timeout", "--dry-run", "--on-interrupt"):
        assert option in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%remote --num-", ["--num-cpus", "--num-gpus"]),
        ("%%remote --view ", ["card", "line", "none"]),
        ("%%remote -o first_v", ["first_value"]),
        ("%%remote -o a,first_v", ["a,first_value"]),
        ("%nbray st", ["status", "stop"]),
        ("%nbray cancel --f", ["--force"]),
    ],
)
def test_tab_offers_exactly_what_there_is(plain_kernel: Kernel, line: str, expected: list[str]) -> None:
    plain_kernel.ok("first_value = 1")
    reply = plain_kernel.client.complete(line, len(line), reply=True, timeout=30)
    assert sorted(reply["content"]["matches"]) == expected


def test_a_cell_magic_of_the_same_name_comes_back_after_unloading(plain_kernel: Kernel) -> None:
    kernel = plain_kernel
    kernel.ok("%unload_ext nbray")
    kernel.ok(
        "from IPython.core.magic import register_cell_magic\n@register_cell_magic\ndef remote(line, cell):\n    return 'mine'"
    )
    kernel.ok("%load_ext nbray\n%unload_ext nbray")
    assert kernel.ok("%%remote\nx").value == "'mine'"
