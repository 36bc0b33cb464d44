"""Dask's graphs on the cluster: one task per node of the graph, results passed between them by reference.

    dask.compute(x, scheduler=nbray.util.dask.get)
    with enable_dask_on_ray():
        x.compute()

The whole graph is submitted at once, in Dask's own order; only what was asked for comes to this process. Large constants are put
into the object store once, and an intermediate result is freed as soon as its last dependent has had it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nbray import absent, api
from nbray.config import INLINE_LIMIT
from nbray.functions import RemoteFunction
from nbray.options import TASK, checked
from nbray.refs import ObjectRef

try:
    import dask.config
    from dask._task_spec import Alias, DataNode, Task, convert_legacy_graph, cull
    from dask.base import get_annotations, persist
    from dask.callbacks import local_callbacks, unpack_callbacks
    from dask.order import order
    from dask.sizeof import sizeof
    from dask.utils import ensure_dict, key_split
except ImportError as missing:
    raise ImportError(
        f"nbray.util.dask needs dask 2024.11 or newer, which is not installed here ({missing}): pip install 'dask[array]'"
    ) from missing

RESOURCES = 'Use ray_remote_args={"resources": {...}} instead of resources={...} to say which resources a task needs'


def get(
    dsk: Any,
    keys: Any,
    *,
    ray_remote_args: Mapping[str, Any] | None = None,
    ray_persist: bool = False,
    callbacks: Any = None,
    in_turn: bool = False,
    **others: Any,
) -> Any:
    """A Dask scheduler: the values of `keys` (a key, or nested lists of keys; lists come back as tuples).

    `ray_remote_args` are options of every task; `dask.annotate(ray_remote_args=...)` says those of some. `ray_persist` returns
    references for values. `in_turn`: one node at a time, for looking for a bug. A node that raises raises here as itself.
    """
    if "resources" in others or "resources" in get_annotations():
        raise ValueError(RESOURCES)
    source = dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__()
    wanted = set(_flat(keys))
    graph = cull(convert_legacy_graph(ensure_dict(source)), wanted)
    run = _Submission(graph, _Options(dsk, ray_remote_args or {}), in_turn)
    with local_callbacks(callbacks) as active:
        calls = unpack_callbacks(active)  # type: ignore[no-untyped-call]
        if any(calls):
            results = _watched(run, wanted, calls)
        else:
            results = run.submit(wanted)
    if not ray_persist:
        refs = [key for key, value in results.items() if isinstance(value, ObjectRef)]
        results.update(zip(refs, api.get([results[key] for key in refs]), strict=True))
    return _packed(keys, results)


nbray_dask_get = ray_dask_get = get


def ray_dask_get_sync(dsk: Any, keys: Any, **options: Any) -> Any:
    """As `get`, one node of the graph at a time."""
    return get(dsk, keys, in_turn=True, **options)


def ray_dask_persist(*collections: Any, **options: Any) -> Any:
    """`dask.persist` that leaves the parts in the cluster: the collections returned hold references."""
    return persist(*collections, scheduler=get, ray_persist=True, **options)  # type: ignore[no-untyped-call]


def enable_dask_on_ray(shuffle: str = "tasks") -> Any:
    """Make this Dask's scheduler, from now on or as a context manager. `shuffle` is its way to shuffle tables."""
    return dask.config.set({"scheduler": get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> Any:
    """Give Dask its own scheduler back."""
    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


class _Options:
    """The options of each node's task: from the call, from `dask.annotate`, and from its layer's annotations."""

    def __init__(self, source: Any, given: Mapping[str, Any]) -> None:
        self._given = {**get_annotations().get("ray_remote_args", {}), **given}
        self._of_key: dict[Any, Mapping[str, Any]] = {}
        if hasattr(source, "__dask_annotations__"):  # an expression
            self._of_key.update(source.__dask_annotations__().get("ray_remote_args", {}))
        for layer in getattr(source, "layers", {}).values():  # a graph of older Dask
            own = (layer.annotations or {}).get("ray_remote_args")
            if own:
                self._of_key.update(dict.fromkeys(layer, own))
        self._made: dict[str, RemoteFunction] = {}

    def function(self, key: Any) -> RemoteFunction:
        """What to call for the node `key`. Made once per name and options: submitting is then cheap."""
        options = {"name": key_split(key) or "dask", **self._given, **self._of_key.get(key, {})}
        which = repr(sorted(options.items()))
        if which not in self._made:
            self._made[which] = RemoteFunction(_run, checked(TASK, options))
        return self._made[which]


class _Submission:
    """One graph on its way to the cluster."""

    def __init__(self, graph: Mapping[Any, Any], options: _Options, in_turn: bool) -> None:
        self.graph, self._options, self._in_turn = graph, options, in_turn
        self.known: dict[Any, Any] = {}  #: key -> reference, or the value itself where it is small and was there

    def submit(self, wanted: set[Any]) -> dict[Any, Any]:
        """Submit every node. Returns what is known of `wanted` and lets go of the rest: tasks hold what they need."""
        for _ in self.each():
            pass
        results = {key: self.known[key] for key in wanted}
        self.known.clear()
        return results

    def each(self) -> Iterator[tuple[Any, Any]]:
        """(key, reference or value) of every node, submitted as it is given."""
        priorities = order(self.graph)
        for key in sorted(self.graph, key=priorities.__getitem__):
            self.known[key] = value = self._start(key, self.graph[key])
            if self._in_turn and isinstance(value, ObjectRef):
                api.get(value)
            yield key, value

    def _start(self, key: Any, node: Any) -> Any:
        if isinstance(node, Alias):
            return self.known[node.target]
        if isinstance(node, DataNode):
            return (
                api.put(node.value) if not isinstance(node.value, ObjectRef) and sizeof(node.value) >= INLINE_LIMIT else node.value
            )
        needs = list(node.dependencies)
        return self._options.function(key).remote(node, needs, *[self.known[need] for need in needs])


def _run(node: Any, needs: list[Any], *values: Any) -> Any:
    """In a worker: one node of a graph."""
    _fetch_inside(node)
    return node(dict(zip(needs, values, strict=True)))


def _fetch_inside(part: Any) -> None:
    """Parts of a persisted collection are references; Dask may have fused the constants that hold them into the node."""
    if isinstance(part, DataNode):
        if isinstance(part.value, ObjectRef):
            part.value = api.get(part.value)
    elif isinstance(part, Task):
        _fetch_inside([*part.args, *(part.kwargs or {}).values()])
    elif isinstance(part, dict | list | tuple):
        for each in part.values() if isinstance(part, dict) else part:
            _fetch_inside(each)


def _watched(run: _Submission, wanted: set[Any], calls: Any) -> dict[Any, Any]:
    """As `submit`, telling Dask's callbacks (its ProgressBar, say). The result that they are given is a reference."""
    start, start_state, before, after, finish = calls
    graph, failed = run.graph, True
    state: dict[str, Any] = {
        "waiting": {},
        "ready": list(graph),
        "running": set(),
        "finished": set(),
        "cache": {},
        "dependencies": {},
    }
    for each in start:
        each(graph)
    for each in start_state:
        each(graph, state)

    def told(key: Any, value: Any) -> None:
        state["running"].discard(key)
        state["finished"].add(key)
        for each in after:
            each(key, value, graph, state, "nbray")

    try:
        flying: dict[ObjectRef[Any], Any] = {}
        for key, value in run.each():
            state["ready"].remove(key)
            state["running"].add(key)
            for each in before:
                each(key, graph, state)
            if isinstance(value, ObjectRef) and value not in flying:
                flying[value] = key
            else:
                told(key, value)
        while flying:
            ready, _ = api.wait(list(flying), num_returns=1, fetch_local=False)
            told(flying.pop(ready[0]), ready[0])
        failed = False
    finally:
        for each in finish:
            each(graph, state, failed)
    return {key: run.known[key] for key in wanted}


def _flat(keys: Any) -> Iterator[Any]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys


def _packed(keys: Any, results: Mapping[Any, Any]) -> Any:
    if isinstance(keys, list):
        return tuple([_packed(each, results) for each in keys])
    return results[keys]


def __getattr__(name: str) -> Any:
    raise absent.missing(__name__, name)
