"""A notebook may lie beside files that are called like modules of the standard library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

CLUSTER = None


def test_a_directory_with_modules_called_like_the_standard_librarys_keeps_no_process_from_starting(
    tmp_path: Path, script: Callable[[str], Any]
) -> None:
    for name in ("types", "random", "queue", "socket", "json"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of the notebook')")
    (tmp_path / "beside.py").write_text("word = 'found'")
    code, said, errors = script(f"""
        # A kernel has loaded the library's own before the notebook's directory comes onto its path.
        import json, os, queue, random, socket, sys, types
        import nbray as ray

        os.chdir({str(tmp_path)!r})
        sys.path.insert(0, "")

        def word():
            import beside
            import queue

            return beside.word, queue.Queue.__module__

        @ray.remote
        class Actor:
            def say(self):
                return word()

        ray.init(num_cpus=1)
        print(ray.get([ray.remote(word).remote(), Actor.options(num_cpus=0).remote().say.remote()]))
        ray.shutdown()
    """).finish()
    assert (code, said) == (0, "[('found', 'queue'), ('found', 'queue')]\n"), errors
