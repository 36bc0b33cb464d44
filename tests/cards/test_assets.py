"""The front end's files as one module: nothing is lost or meant twice on the way."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nbray.cards import assets
from nbray.cards.widget import Picture, View

IMPORT = re.compile(r'^import .*?"\./([a-z]+\.js)";$', re.MULTILINE | re.DOTALL)


def test_what_a_file_imports_comes_before_it_and_is_exported_there() -> None:
    exports: dict[str, set[str]] = {}
    for name in assets.FILES:
        source = (assets.STATIC / name).read_text(encoding="utf-8")
        found = assets._IMPORT.findall(source)
        assert len(found) == len(IMPORT.findall(source)), f"{name} imports in a way that is not understood"
        for names, module in found:
            assert {each.strip() for each in names.split(",") if each.strip()} <= exports[f"{module}.js"], f"{name}: {module}"
        exports[name] = set(assets._EXPORT.findall(source))
    assert set(assets.VIEWS) <= set().union(*exports.values())


def test_two_files_may_use_one_name() -> None:
    module = assets.module()
    assert not re.findall(r"^(?:import|export (?!const create))", module, re.MULTILINE)
    assert module.count("= (() => {") == len(assets.FILES)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is what reads it")
def test_the_module_and_the_loaders_can_be_read(tmp_path: Path) -> None:

    for number, source in enumerate((assets.module(), str(View._esm), str(Picture._esm))):
        file = tmp_path / f"module{number}.mjs"
        file.write_text(source, encoding="utf-8")
        ran = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
