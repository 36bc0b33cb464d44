"""A worker that is an interpreter of its own: `<python of the environment> .../nbray/worker/fresh.py`, executed by a fork of the
zygote, which thereby stays its parent. It first has to find nbray, which is installed where the zygote runs and not here."""

import sys

if not getattr(sys.flags, "safe_path", False):
    # The directory of this file, where modules are called `state` and `output`.
    del sys.path[0]

import base64
import importlib
import importlib.util
import json
import os
import site

told = json.loads(os.environ.pop("NBRAY_WORKER_BOOT"))
for directory in told["parents"]:
    if directory not in sys.path:
        site.addsitedir(directory)  # after what is installed here, which is meant to win
if importlib.util.find_spec("nbray") is None:
    sys.path.append(told["root"])

import msgspec  # noqa: E402

from nbray.node.zygote import live  # noqa: E402
from nbray.worker.boot import WorkerBoot  # noqa: E402

if __name__ == "__main__":
    module, _, function = told["entry"].partition(":")
    boot = msgspec.msgpack.decode(base64.b64decode(told["boot"]), type=WorkerBoot)
    live(getattr(importlib.import_module(module), function), boot)
