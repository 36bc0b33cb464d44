"""IPython in a terminal: no kernel, no cells of a page. Everything prints, in order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """\
%load_ext nbray
import nbray
nbray.init(num_cpus=2)
get_ipython().run_cell("%%remote\\nprint('from the worker')\\ny = 6 * 7\\ny")
print('y is', y)
@nbray.remote
def say():
    print('plainly')
nbray.get(say.remote())
get_ipython().run_cell("1")
%nbray status
%unload_ext nbray
nbray.shutdown()
"""


def test_the_magics_work_and_output_prints(tmp_path: Path) -> None:
    script = tmp_path / "session.ipy"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", str(script)],
        check=False, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in (
        "none yet: starts on first use",
        "from the worker\n",
        "✓ done",
        "42",
        "y is 42\n",
        "plainly\n",
        "attached to: local",
    ):
        assert said in done.stdout, (said, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
