"""`get_ipython()` inside a cell that runs on the cluster: shell lines work there, magics belong to the notebook."""

from __future__ import annotations

import re
import subprocess
from typing import Any

EXPRESSION = re.compile(r"\{([^{}]+)\}|\$([A-Za-z_]\w*)")


class CellShell:
    """What `!command` and `x = !command` of a cell turn into. Output appears as the cell's own."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace

    def system(self, command: str) -> None:
        """Run `command`, print what it prints as it comes, and leave its exit status in `_exit_code`."""
        with self._started(command) as process:
            try:
                for line in process.stdout or ():
                    print(line, end="")
            except BaseException:
                process.terminate()  # a cancelled cell must not leave its command running
                raise
        self._namespace["_exit_code"] = process.returncode

    def getoutput(self, command: str) -> list[str]:
        """Run `command` and return its lines."""
        with self._started(command) as process:
            try:
                text, _ = process.communicate()
            except BaseException:
                process.terminate()
                raise
        self._namespace["_exit_code"] = process.returncode
        return text.splitlines()

    def _started(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(  # a shell line is what the user wrote
            self.expanded(command), shell=True, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def expanded(self, command: str) -> str:
        """`{expression}` and `$name` replaced by their values, as IPython does; what has no value stays as written."""

        def value(found: re.Match[str]) -> str:
            try:
                return str(eval(found[1] or found[2], self._namespace))  # the user's own expression
            except Exception:  # noqa: BLE001 -- `awk '{print $1}'` is no expression of ours
                return found[0]

        return EXPRESSION.sub(value, command)
