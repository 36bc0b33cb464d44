"""`python -m nbray.node <settings fd> <ready fd>`: a node daemon. Started by `driver/launch.py` and the command line.

The zygote is spawned before anything else is imported, so that both processes import at the same time.
"""

import gc
import os
import sys
import time

from nbray.node.spawn import spawn_zygote

# Before the zygote is there to inherit them: the starter waits for the end of file.
SETTINGS_FD, READY_FD = int(sys.argv[1]), int(sys.argv[2])
os.set_inheritable(SETTINGS_FD, False)
os.set_inheritable(READY_FD, False)
ZYGOTE = spawn_zygote()
gc.disable()  # until everything is imported: it stays

import msgspec  # noqa: E402

from nbray import config  # noqa: E402
from nbray.node.life import live  # noqa: E402
from nbray.node.settings import NodeSettings, Started  # noqa: E402


def main() -> int:
    """Read the settings, live, and live again under a new id when the head had given this node up."""
    gc.freeze()
    gc.enable()
    with open(SETTINGS_FD, "rb") as file:
        settings = msgspec.json.decode(file.read(), type=NodeSettings)
    ready: list[int] = [READY_FD]

    def started(words: Started) -> None:
        if ready:
            with open(ready.pop(), "wb") as file:
                file.write(msgspec.json.encode(words))

    zygote = ZYGOTE
    give_up_at = 0.0
    while True:
        try:
            stop = live(settings, zygote, started)
        except Exception as error:
            if not ready:
                if not isinstance(error, ConnectionError) or time.monotonic() >= give_up_at:
                    raise
                time.sleep(1.0)  # the head is not back yet
                continue
            # The starter shows these words to a person: what is wrong, without our stack.
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return 1
        if not stop.rejoin:
            return 0
        zygote = spawn_zygote()
        give_up_at = time.monotonic() + config.HEAD_GRACE_S


if __name__ == "__main__":
    sys.exit(main())
