"""nbray: ordinary Python on every core and machine you have, from inside a notebook.

    %load_ext nbray          in a notebook: write %%remote over a cell
    import nbray as ray      anywhere: Ray's API

Public names are imported at their first use. Node daemons and the zygote import this package too, and do without what only
user code needs (asyncio alone is 8 MB in each of them).
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from nbray.absent import Finder, missing

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nbray import actor, cloudpickle, dag, exceptions, experimental, job_config, job_submission, state, types, util
    from nbray.actors import method
    from nbray.api import (
        available_resources,
        cancel,
        cluster_resources,
        error_info,
        get,
        get_actor,
        get_gpu_ids,
        kill,
        nodes,
        put,
        remote,
        timeline,
        wait,
    )
    from nbray.client_builder import ClientBuilder, client
    from nbray.connection import init, is_initialized, shutdown
    from nbray.generators import DynamicObjectRefGenerator, ObjectRefGenerator
    from nbray.identifiers import (
        LOCAL_MODE,
        SCRIPT_MODE,
        WORKER_MODE,
        ActorClassID,
        ActorID,
        ClusterID,
        FunctionID,
        JobID,
        Language,
        NodeID,
        PlacementGroupID,
        TaskID,
        UniqueID,
        WorkerID,
        cpp_function,
        java_actor_class,
        java_function,
    )
    from nbray.keeping import keep, kept, unkeep
    from nbray.logging_config import LoggingConfig
    from nbray.refs import ObjectRef
    from nbray.refs import ObjectRef as ObjectID
    from nbray.runtime_context import get_runtime_context

#: Where each public name lives; a name that is missing here under its own module is a module.
_HOMES = {
    "nbray.api": (
        *("available_resources", "cancel", "cluster_resources", "error_info", "get", "get_actor", "get_gpu_ids", "kill"),
        *("nodes", "put", "remote", "timeline", "wait"),
    ),
    "nbray.actors": ("method",),
    "nbray.connection": ("init", "is_initialized", "shutdown"),
    "nbray.client_builder": ("ClientBuilder", "client"),
    "nbray.generators": ("DynamicObjectRefGenerator", "ObjectRefGenerator"),
    "nbray.keeping": ("keep", "kept", "unkeep"),
    "nbray.identifiers": (
        *("ActorClassID", "ActorID", "ClusterID", "FunctionID", "JobID", "Language", "LOCAL_MODE", "NodeID", "PlacementGroupID"),
        *("SCRIPT_MODE", "TaskID", "UniqueID", "WORKER_MODE", "WorkerID", "cpp_function", "java_actor_class", "java_function"),
    ),
    "nbray.logging_config": ("LoggingConfig",),
    "nbray.refs": ("ObjectRef",),
    "nbray.runtime_context": ("get_runtime_context",),
}
_MODULES = (
    *("actor", "client_builder", "cloudpickle", "cross_language", "dag", "exceptions", "experimental", "job_config"),
    *("job_submission", "remote_function", "runtime_context", "runtime_env", "state", "types", "util", "widgets"),
)

__all__ = [
    "LOCAL_MODE",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "ActorClassID",
    "ActorID",
    "ClientBuilder",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "client",
    "cloudpickle",
    "cluster_resources",
    "cpp_function",
    "dag",
    "error_info",
    "exceptions",
    "experimental",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "job_config",
    "job_submission",
    "keep",
    "kept",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "state",
    "timeline",
    "types",
    "unkeep",
    "util",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name == "ObjectID":
        return __getattr__("ObjectRef")  # what older Ray called it
    if name in _MODULES:
        return importlib.import_module(f"nbray.{name}")
    for home, names in _HOMES.items():
        if name in names:
            found = getattr(importlib.import_module(home), name)
            globals()[name] = found
            return found
    raise missing(__name__, name)


def __dir__() -> list[str]:
    return __all__


sys.meta_path.append(Finder)  # a finder needs `find_spec` and no more


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext nbray`: the %%remote cell magic, %nbray, and output that lands in the cell which caused it."""
    # Imported when called: it brings IPython, which a script's `import nbray` must not.
    from nbray.notebook import extension

    extension.load_ipython_extension(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext nbray`: everything that loading added is gone."""
    from nbray.notebook import extension  # as above

    extension.unload_ipython_extension(ipython)
