"""One turn: a fresh process that is one peer, and measures the rows it is told to, in order.

    python -m benchmarks.turn PEER SECONDS BLOCK/INDEX ...

It says one JSON line per row to the descriptor that was its standard output; whatever peers print goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

from benchmarks import peers
from benchmarks.table_of_contents import BLOCKS


def main(peer_name: str, seconds: str, *names: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what a row made outside this process is undone
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    blocks = {block.key: block for block in BLOCKS}
    rows = [blocks[key].rows[int(index)] for key, _, index in (name.partition("/") for name in names)]
    peer = peers.make(peer_name)
    needed = not all(row.standalone for row in rows)
    starting = names[0].startswith("startup/")  # there the first row is the start, and the last is the end
    if needed:
        peer.prepare()
    if needed and not starting:
        peer.start()
        peer.call()
    for row in rows:
        answer: dict[str, Any] = {}
        try:
            assert row.measure is not None
            answer["value"] = row.measure(peer, float(seconds))
        except Exception as error:  # noqa: BLE001 -- a peer that fails is a result
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {error}"[:300]
        said.write(json.dumps(answer) + "\n")
        said.flush()
    if needed and not starting:
        peer.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
