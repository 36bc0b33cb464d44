"""What Ray has and nbray has not: each with what it is, and the nearest thing that works here.

Two ways lead here: `nbray.util.spark` as an attribute, which the `__getattr__` of its package passes on (`missing`), and
`from nbray.util import spark` or `import nbray.util.spark`, which Python's import passes on (`Finder`).
"""

from __future__ import annotations

import sys
from typing import Any

_DEVICES = "arrays travel through the object store, without a copy on one node"
_LIBRARY = "a library of its own on top of Ray, and not part of nbray"
_CLUSTERS = "start nodes with `nbray start --address` on the machines that there are"
_FRAMEWORK = "call the library inside tasks or actors"

#: Below `nbray`: name -> (what it is, the nearest thing that works).
NOT_BUILT: dict[str, tuple[str, str]] = {
    "air": (_LIBRARY, _FRAMEWORK),
    "data": (_LIBRARY, "cut the data with numpy or pandas and map a remote function over the parts"),
    "llm": (_LIBRARY, "keep a model in an actor"),
    "rllib": (_LIBRARY, "run environments in actors"),
    "serve": (_LIBRARY, "keep a model in an actor"),
    "train": (_LIBRARY, "train inside tasks or actors"),
    "tune": (_LIBRARY, "run one task per parameter set: `%%remote --each`, or a list of f.remote(p)"),
    "workflow": (_LIBRARY, "pass references between tasks; they are retried and remade by themselves"),
    "autoscaler": ("what starts and stops machines for Ray", _CLUSTERS),
    "cluster_utils": ("what starts several nodes on one machine, for Ray's own tests", _CLUSTERS),
    "internal": ("not for users in Ray either", "drop the last reference to an object to free it"),
    "dag.CollectiveOutputNode": ("part of compiled graphs", "nbray.util.collective, inside the actors' methods"),
    "dag.DAGContext": ("settings of compiled graphs", "MultiOutputNode and execute() need none"),
    "dag.DAGOperationFuture": ("part of compiled graphs", "the references that execute() returns"),
    "dag.GPUFuture": ("part of compiled graphs", "the references that execute() returns"),
    "dag.compiled_dag_node": ("compiled graphs", "execute() runs the same graph as tasks and actor calls"),
    "dag.plot": ("a picture of a graph", "after its execution the Lineage tab of the cell's card has it"),
    "experimental.channel": ("channels of compiled graphs", "nbray.util.queue, or actor calls"),
    "experimental.collective": ("collectives of compiled graphs", "nbray.util.collective"),
    "experimental.compiled_dag_ref": ("compiled graphs", "execute() of a graph returns references"),
    "experimental.dynamic_resources": ("deprecated in Ray, and refused there", "name resources in nbray.init or nbray start"),
    "experimental.gradio_utils": ("types of inputs for Gradio", "call the function that asks for input yourself"),
    "experimental.job": ("empty in Ray", "nbray.job_submission"),
    "experimental.rdt": ("transfers from device to device", _DEVICES),
    "experimental.register_tensor_transport": ("transfers from device to device", _DEVICES),
    "experimental.set_resource": ("deprecated in Ray, and refused there", "name resources in nbray.init or nbray start"),
    "experimental.set_target_for_ref": ("transfers from device to device", _DEVICES),
    "experimental.shuffle": ("an example of Ray's", "a remote function with num_returns=n for each part, and one that joins"),
    "experimental.wait_tensor_freed": ("transfers from device to device", _DEVICES),
    "util.collective.allgather_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.allreduce_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.broadcast_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.recv_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.reduce_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.reducescatter_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.collective.register_collective_backend": ("other ways to send arrays", "torch.distributed inside the actors"),
    "util.collective.send_multigpu": ("one process for several GPUs", "an actor for each GPU"),
    "util.dask.ProgressBarCallback": ("a bar for Dask's graphs", "dask.diagnostics.ProgressBar, which sees every node"),
    "util.dask.RayDaskCallback": ("hooks around Dask's tasks", "dask.callbacks.Callback: start, pretask, posttask, finish"),
    "util.dask.dataframe_optimize": ("one task for each shuffle's part", "Dask's own optimisation, and its task shuffle"),
    "util.dask.local_ray_callbacks": ("hooks around Dask's tasks", "dask.callbacks.local_callbacks"),
    "util.dask.unpack_ray_callbacks": ("hooks around Dask's tasks", "dask.callbacks.unpack_callbacks"),
    "util.ActorGroup": ("deprecated in Ray", "a list of handles, or nbray.util.ActorPool"),
    "util.actor_group": ("deprecated in Ray", "a list of handles, or nbray.util.ActorPool"),
    "util.client": ("Ray's proxy for drivers elsewhere", 'nbray.init("host:port"), which needs no proxy'),
    "util.client_connect": ("Ray's proxy for drivers elsewhere", 'nbray.init("host:port"), which needs no proxy'),
    "util.connect": ("deprecated in Ray", 'nbray.init("host:port")'),
    "util.disconnect": ("deprecated in Ray", "nbray.shutdown()"),
    "util.debugpy": ("a debugger that an editor attaches to", "breakpoint() in a task, or `%nbray debug` after an error"),
    "util.ray_debugpy": ("a debugger that an editor attaches to", "breakpoint() in a task, or `%nbray debug` after an error"),
    "util.get_node_instance_id": ("the cloud's name of a machine", "nbray.get_runtime_context().get_node_id()"),
    "util.horovod": (_LIBRARY, "nbray.util.collective, or Horovod's own launcher"),
    "util.iter_metrics": ("deprecated in Ray", "nbray.util.metrics"),
    "util.lightgbm": (_LIBRARY, _FRAMEWORK),
    "util.sgd": (_LIBRARY, _FRAMEWORK),
    "util.spark": ("Ray inside a Spark cluster", "a driver or task may use pyspark as any library"),
    "util.tpu": ("slices of TPUs", "resources={'TPU': n} in nbray.init and on tasks"),
    "util.tracing": ("hooks for OpenTelemetry", "nbray.timeline(), which Perfetto draws, and the cards"),
    "util.xgboost": (_LIBRARY, _FRAMEWORK),
}


class NotInNbrayError(AttributeError, NotImplementedError):
    """Ray has this name, and nbray has not. To `hasattr` and `getattr` it is an attribute that is missing."""


def words(name: str) -> str:
    """Why there is no `name` (below nbray), and what to do instead."""
    what, instead = NOT_BUILT[name]
    return f"nbray.{name} is not built (Ray has it: {what}). What works here: {instead}."


def missing(package: str, name: str) -> AttributeError:
    """What `package.name` deserves, for a module's `__getattr__` to raise: NotInNbrayError, or a plain AttributeError."""
    below = f"{package}.{name}".partition(".")[2]
    if below in NOT_BUILT:
        return NotInNbrayError(words(below), name=name)
    return AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules.get(package))


class Finder:
    """The last finder of modules: says what `from nbray import tune` should be instead, where Python would only say "no"."""

    @staticmethod
    def find_spec(name: str, _path: Any = None, _target: Any = None) -> None:
        package, _, below = name.partition(".")
        if package == "nbray" and below in NOT_BUILT:
            raise ImportError(words(below), name=name)
