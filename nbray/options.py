"""Every option of tasks, actors and actor methods: one row each, with its default, its rule and where it may be given.

`checked()` takes what a person wrote and raises on anything that is not in the table; `task_options`, `actor_options` and
`call_options` turn the checked dict into what the engine port takes. Error texts are Ray's where Ray has one.
"""

from __future__ import annotations

import difflib
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from nbray.config import TASK_MAX_RETRIES
from nbray.engines.port import ActorOptions, CallOptions, TaskOptions
from nbray.runtime_env import checked as checked_environment
from nbray.sched.resources import to_amounts
from nbray.strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
    Selector,
    placing,
    selector,
)
from nbray.wire.environment import canonical
from nbray.wire.messages import Streaming

TASK, ACTOR, METHOD = "remote functions", "actors", "actor methods"
STREAMING = "streaming"  #: num_returns of a generator: references as they come
ASYNC_CONCURRENCY = 1000  #: calls that an async actor runs at once, unless told otherwise (as in Ray)
ACCELERATOR_SHARE = 0.001  #: of "accelerator_type:X" that a task takes: it marks a node and is never used up (as in Ray)

STRATEGIES = (PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)

Rule = Callable[[str, Any], Any]  #: (option, value) -> the value as it is used; raises TypeError or ValueError


class Option(msgspec.Struct, frozen=True):
    """One row of the table. `rule` is not asked about None, which means the default."""

    name: str
    kinds: tuple[str, ...]
    default: Any
    rule: Rule
    in_options: bool = True  #: may be given to `.options()` too, not only to the decorator
    takes_none: bool = False  #: None is a value of its own, which the rule is asked about


# ------------------------------------------------------------------------------------------------------- rules


def _refuse_type(name: str, value: Any, *types: type) -> TypeError:
    listed = ", ".join(str(t) for t in (*types, type(None)))
    return TypeError(f"The type of keyword '{name}' must be ({listed}), but received type {type(value)}")


def _typed(*types: type) -> Rule:
    def rule(name: str, value: Any) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise _refuse_type(name, value, *types)
        return value

    return rule


def _amount(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _refuse_type(name, value, int, float)
    number: int | float = int(value) if isinstance(value, numbers.Integral) else float(value)
    to_amounts({name: number})  # raises: negative, NaN, infinite, finer than 0.0001
    return number


def _gpus(name: str, value: Any) -> int | float:
    number = _amount(name, value)
    if number > 1 and number != int(number):
        raise ValueError(f"{name}={number}: shares are of one GPU; more than one is a whole number of them")
    return number


def _resources(name: str, value: Any) -> dict[str, int | float]:
    if not isinstance(value, Mapping):
        raise _refuse_type(name, value, dict)
    for resource, number in value.items():
        if not isinstance(resource, str) or not resource:
            raise ValueError(f"The keyword 'resources' names a resource {resource!r}; a name is a string that is not empty")
        if len(resource) > 256:
            raise ValueError(f"The keyword 'resources' has a name of {len(resource):,} characters; 256 are allowed")
        if resource in ("CPU", "GPU"):
            raise ValueError("Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword")
        if resource in ("memory", "object_store_memory"):
            raise ValueError(f"Use the '{resource}' keyword instead of {resource!r} in 'resources' keyword")
        _amount(f"resources[{resource!r}]", number)
    return dict(value)


def _count(name: str, value: Any, lowest: int, said: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _refuse_type(name, value, int)
    count = int(value)
    if count < lowest:
        raise ValueError(f"The keyword '{name}' only accepts {said}, but received {count}")
    if count >= 2**31:
        raise ValueError(f"The keyword '{name}' is {count}, more than the {2**31 - 1} that can be counted here")
    return count


def _or_infinite(name: str, value: Any) -> int:
    return _count(name, value, -1, "None, 0, -1 or a positive integer, where -1 represents infinity.")


def _positive(name: str, value: Any) -> int:
    return _count(name, value, 1, "None or a positive integer")


def _max_calls(name: str, value: Any) -> int:
    return _count(name, value, 0, "None, 0 or a positive integer.")


def _pending_calls(name: str, value: Any) -> int:
    if value == 0:
        raise ValueError(f"The keyword '{name}' only accepts None, -1 or a positive integer, where -1 represents infinity.")
    return _or_infinite(name, value)


def _returns(name: str, value: Any) -> int | str:
    if value == "dynamic":
        warnings.warn(
            "num_returns='dynamic' is deprecated; num_returns='streaming' gives the references as they come",
            DeprecationWarning,
            stacklevel=5,
        )
    if value in (STREAMING, "dynamic"):
        return str(value)
    if isinstance(value, str):
        only = "None, a non-negative integer, 'streaming' (for generators), or 'dynamic'"
        raise ValueError(f"The keyword '{name}' only accepts {only}, not {value!r}")
    if type(value) is int and value < 0:
        raise ValueError(f"num_returns must be >= 0, but got {value}.")
    count = _count(name, value, 0, "None or a non-negative integer")
    if count > 1_000_000:
        raise ValueError(f"The keyword '{name}' is {count:,}; one task can return at most 1,000,000 references")
    return count


def _window(name: str, value: Any) -> int:
    if value == 0:
        raise ValueError(
            f"{name}=0 is not allowed. Use a value > 0: with 1 the generator makes one object for each `next`. -1 disables it."
        )
    return _count(name, value, -1, "-1 or a positive integer")


def _per_yield(name: str, value: Any) -> int:
    if type(value) is int and value <= 0:
        raise ValueError(f"{name} is a private streaming generator option that must be set to a positive integer, not {value}")
    return _count(name, value, 1, "a positive integer")


def _retry_exceptions(name: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise _refuse_type(name, value, bool, list)
    for one in value:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"The keyword '{name}' must be a boolean or a list of exception classes; {one!r} is not one")
    return tuple(value) or False


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse_type(name, value, str)
    if not value:
        raise ValueError(f"The keyword '{name}' cannot be an empty string; leave it out instead")
    if len(value) > 4096:
        raise ValueError(f"The keyword '{name}' has {len(value):,} characters; 4,096 are allowed")
    return value


def _lifetime(name: str, value: Any) -> str:
    if value not in ("detached", "non_detached"):
        raise ValueError(f"actor `{name}` argument must be one of 'detached', 'non_detached' and None, but received {value!r}")
    return str(value)


def _groups(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise _refuse_type(name, value, dict)
    for group, size in value.items():
        if not isinstance(group, str) or not group:
            raise ValueError(f"The keyword '{name}' names a group {group!r}; a name is a string that is not empty")
        if isinstance(size, bool) or not isinstance(size, numbers.Integral):
            raise TypeError(f"The keyword '{name}' maps names of groups to numbers of calls; {group!r} has {size!r}")
        if size <= 0:
            raise ValueError(f"max_concurrency must be greater than 0, and the concurrency group {group!r} has {size}")
    return {group: int(size) for group, size in value.items()}


def _strategy(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("DEFAULT", "SPREAD"):
            raise ValueError(
                f'Invalid {name} value {value}. Valid values are ["DEFAULT" | "SPREAD" | PlacementGroupSchedulingStrategy | '
                "NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy]"
            )
        return value
    if not isinstance(value, STRATEGIES):
        raise _refuse_type(name, value, str, *STRATEGIES)
    return value


def _selector(name: str, value: Any) -> Selector:
    if not isinstance(value, Mapping):
        raise _refuse_type(name, value, dict)
    return selector(value)


def _fallback(name: str, value: Any) -> list[Selector]:
    if not isinstance(value, list):
        raise _refuse_type(name, value, list)
    for one in value:
        if not isinstance(one, Mapping):
            raise ValueError(f"Each element in {name} must be a dictionary.")
        if not one:
            raise ValueError(f"Empty dictionary found in `{name}`.")
        if odd := [key for key in one if key != "label_selector"]:
            raise ValueError(f"Unsupported option found: '{odd[0]}'. Only ['label_selector'] is currently supported.")
    return [_selector("label_selector", one["label_selector"]) for one in value]


def _old_group(name: str, value: Any) -> Any:
    if value is None or value == "default":
        return value
    if not hasattr(value, "bundle_cache"):
        raise TypeError(f"{name} is a placement group, None or 'default', not {value!r}")
    today = "scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=...)"
    warnings.warn(f"the {name} option is deprecated: say {today}", DeprecationWarning, stacklevel=5)
    return value


def _runtime_env(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse_type(name, value, dict)
    return checked_environment(value)


def _unbuilt(*harmless: Any, instead: str) -> Rule:
    """An option whose machinery does not exist: only values that ask for nothing are taken."""

    def rule(name: str, value: Any) -> Any:
        if not any(value is h or (type(value) is type(h) and value == h) for h in harmless):
            raise NotImplementedError(f"{name}={value!r} is not built yet; {instead}")
        return value

    return rule


def _actor_store_memory(name: str, _value: Any) -> None:
    warnings.warn(f"{name} does nothing for actors any more; leave it out", DeprecationWarning, stacklevel=6)


# ------------------------------------------------------------------------------------------------------- the table


OPTIONS: tuple[Option, ...] = (
    Option("num_cpus", (TASK, ACTOR), 1, _amount),
    Option("num_gpus", (TASK, ACTOR), 0, _gpus),
    Option("resources", (TASK, ACTOR), {}, _resources),
    Option("memory", (TASK, ACTOR), 0, _amount),
    Option("accelerator_type", (TASK, ACTOR), None, _text),
    Option("runtime_env", (TASK, ACTOR), {}, _runtime_env),
    Option("scheduling_strategy", (TASK, ACTOR), "DEFAULT", _strategy),
    Option("name", (TASK, ACTOR, METHOD), "", _text),
    Option("num_returns", (TASK, METHOD), 1, _returns),
    Option("max_retries", (TASK,), TASK_MAX_RETRIES, _or_infinite),
    Option("retry_exceptions", (TASK, METHOD), False, _retry_exceptions),
    Option("namespace", (ACTOR,), None, _text),
    Option("lifetime", (ACTOR,), None, _lifetime),
    Option("get_if_exists", (ACTOR,), False, _typed(bool)),
    Option("max_restarts", (ACTOR,), 0, _or_infinite),
    Option("max_task_retries", (ACTOR, METHOD), 0, _or_infinite),
    Option("max_concurrency", (ACTOR,), None, _positive),
    Option("max_pending_calls", (ACTOR,), -1, _pending_calls),
    Option("object_store_memory", (ACTOR,), None, _actor_store_memory),
    Option("object_store_memory", (TASK,), None, _unbuilt(instead="a task's objects take what room the store has")),
    Option("max_calls", (TASK,), 0, _max_calls, in_options=False),
    Option("concurrency_groups", (ACTOR,), {}, _groups, in_options=False),
    Option("concurrency_group", (METHOD,), "", _text),
    Option("allow_out_of_order_execution", (ACTOR,), None, _typed(bool)),
    Option("enable_task_events", (TASK, ACTOR, METHOD), True, _typed(bool)),
    Option("label_selector", (TASK, ACTOR), {}, _selector),
    Option("fallback_strategy", (TASK, ACTOR), [], _fallback),
    Option("_labels", (TASK, ACTOR), {}, _unbuilt({}, instead="label_selector chooses nodes by their labels")),
    Option("placement_group", (TASK, ACTOR), "default", _old_group, takes_none=True),
    Option("placement_group_bundle_index", (TASK, ACTOR), -1, _typed(int)),
    Option("placement_group_capture_child_tasks", (TASK, ACTOR), False, _typed(bool)),
    Option("_generator_backpressure_num_objects", (TASK, METHOD), -1, _window),
    Option("_actor_generator_backpressure_num_objects", (ACTOR,), -1, _window),
    Option("_num_objects_per_yield", (TASK, METHOD), 1, _per_yield, in_options=False),
    Option("tensor_transport", (METHOD,), None, _unbuilt(instead="arrays travel through the object store")),
    Option("enable_tensor_transport", (ACTOR,), False, _unbuilt(False, instead="arrays travel through the object store")),
)

TABLES: dict[str, dict[str, Option]] = {kind: {o.name: o for o in OPTIONS if kind in o.kinds} for kind in (TASK, ACTOR, METHOD)}

#: Spellings of older Ray, with today's.
OLD_SPELLINGS = {"num_return_vals": "num_returns", "max_reconstructions": "max_restarts"}


def checked(kind: str, given: Mapping[str, Any], *, in_options: bool = False) -> dict[str, Any]:
    """`given` checked and normalised, under today's names, without those that are None.

    Raises ValueError for an unknown option or a value that breaks its rule, TypeError for a wrong type, and
    NotImplementedError for what is not built yet, each naming the option.
    """
    table, result = TABLES[kind], {}
    for written, value in given.items():
        name = _todays(written)
        option = table.get(name)
        if option is None:
            raise ValueError(_unknown(kind, name))
        if in_options and not option.in_options:
            decorator = "@nbray.method" if kind == METHOD else "@nbray.remote"
            raise ValueError(
                f"Setting '{name}' is not supported in '.options()'. It cannot be overridden for one call: {decorator}({name}=...)."
            )
        if value is not None or option.takes_none:
            result[name] = option.rule(name, value)
    return result


def _todays(name: str) -> str:
    today = OLD_SPELLINGS.get(name)
    if today is None:
        return name
    warnings.warn(f"{name} is called {today} today: @nbray.remote({today}=...)", DeprecationWarning, stacklevel=5)
    return today


def _unknown(kind: str, name: str) -> str:
    elsewhere = next((k for k, t in TABLES.items() if name in t), None)
    other = f" It is an option of {elsewhere}." if elsewhere else ""
    return unknown_keyword(name, TABLES[kind], kind) + other


def unknown_keyword(name: str, known: Iterable[str], where: str) -> str:
    """The text for an option that does not exist, with the one that was probably meant."""
    valid = [k for k in known if not k.startswith("_")]
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"Invalid option keyword {name} for {where}.{meant} Valid ones are: {', '.join(valid)}."


# ------------------------------------------------------------------------------------------------------- what the port takes


def _named_resources(options: Mapping[str, Any]) -> dict[str, int | float]:
    wanted: dict[str, int | float] = dict(options.get("resources", {}))
    for option, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if option in options:
            wanted[resource] = options[option]
    if "accelerator_type" in options:
        wanted[f"accelerator_type:{options['accelerator_type']}"] = ACCELERATOR_SHARE
    return wanted


def environment(options: Mapping[str, Any]) -> str:
    """Canonical JSON of the runtime environment; empty when it asks for nothing."""
    return canonical(options.get("runtime_env") or {})


def streaming(options: Mapping[str, Any], *, generates: bool) -> Streaming | None:
    """How the results of a function stream; None if they do not. `generates`: it is a generator function.

    Raises ValueError where streaming is asked of a function that does not yield.
    """
    returns = options.get("num_returns", STREAMING if generates else 1)
    if not isinstance(returns, str):
        return None
    if not generates:
        raise ValueError(
            f"num_returns={returns!r} can only be used with generator functions (functions that use 'yield'). "
            "The decorated function is not a generator function."
        )
    dynamic = returns != STREAMING
    window = -1 if dynamic else options.get("_generator_backpressure_num_objects", -1)
    return Streaming(window=window, per_yield=options.get("_num_objects_per_yield", 1), dynamic=dynamic)


def task_options(options: Mapping[str, Any], name: str = "", *, generates: bool = False) -> TaskOptions:
    """From checked options. A task that names no CPUs takes one. `name` is used where the options have none."""
    stream = streaming(options, generates=generates)
    amounts = to_amounts({"CPU": 1, **_named_resources(options)})
    return TaskOptions(
        amounts=amounts,
        returns=1 if stream is not None else options.get("num_returns", 1),
        stream=stream,
        max_retries=options.get("max_retries", TASK_MAX_RETRIES),
        retry_exceptions=options.get("retry_exceptions", False),
        name=options.get("name", name),
        env=environment(options),
        max_calls=options.get("max_calls", 0),
        traced=options.get("enable_task_events", True),
        **placing(options, [amounts], options.get("name", name) or "the task"),
    )


def actor_options(options: Mapping[str, Any], *, is_async: bool = False) -> ActorOptions:
    """From checked options. An actor that names no resource needs a free CPU to be placed and then holds none; one that
    names some holds them, and a CPU unless it says num_cpus=0."""
    named = _named_resources(options)
    amounts = to_amounts({"CPU": 1, **named})
    if options.get("get_if_exists") and "name" not in options:
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    concurrency = options.get("max_concurrency", ASYNC_CONCURRENCY if is_async else 1)
    return ActorOptions(
        placement=amounts,
        running=amounts if named else {},
        max_restarts=options.get("max_restarts", 0),
        max_task_retries=options.get("max_task_retries", 0),
        max_concurrency=concurrency,
        is_async=is_async,
        groups=options.get("concurrency_groups", {}),
        max_pending_calls=options.get("max_pending_calls", -1),
        name=options.get("name", ""),
        namespace=options.get("namespace"),
        detached=options.get("lifetime") == "detached",
        get_if_exists=options.get("get_if_exists", False),
        env=environment(options),
        unordered=_unordered(options.get("allow_out_of_order_execution"), concurrency, is_async),
        traced=options.get("enable_task_events", True),
        window=options.get("_actor_generator_backpressure_num_objects", -1),
        **placing(options, [amounts], options.get("name", "") or "the actor"),
    )


def _unordered(given: bool | None, concurrency: int, is_async: bool) -> bool:
    """Several calls at once have no order to keep: there it is the only answer."""
    several = is_async or concurrency > 1
    if given is False and several:
        kind = "async actors" if is_async else "multi-threaded actors"
        raise ValueError(
            f"allow_out_of_order_execution=False cannot be kept by {kind}, which can't execute actor tasks in order. Leave it out, "
            "or set allow_out_of_order_execution=True."
        )
    return several if given is None else given


def call_options(options: Mapping[str, Any], *, max_task_retries: int = 0, generates: bool = False) -> CallOptions:
    """From checked options of a method. `max_task_retries` is the actor's own, used where the method says nothing."""
    stream = streaming(options, generates=generates)
    return CallOptions(
        returns=1 if stream is not None else options.get("num_returns", 1),
        stream=stream,
        name=options.get("name", ""),
        max_task_retries=options.get("max_task_retries", max_task_retries),
        retry_exceptions=options.get("retry_exceptions", False),
        group=options.get("concurrency_group", ""),
        traced=options.get("enable_task_events", True),
    )
