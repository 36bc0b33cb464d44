"""Ray's marks on public names, which libraries on top of Ray put on their own: they say how stable a name is."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class AnnotationType(Enum):
    """How stable a name is."""

    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"


class RayDeprecationWarning(DeprecationWarning):
    """A name marked with `@Deprecated(warning=True)` was used."""


def PublicAPI(*args: Any, stability: str = "stable", api_group: str = "Others") -> Any:  # noqa: N802 -- Ray's name
    """For users: `@PublicAPI`, or `@PublicAPI(stability="alpha")`; "stable", "beta" or "alpha". Raises ValueError for others."""
    if stability not in ("stable", "beta", "alpha"):
        raise ValueError(f'stability is "stable", "beta" or "alpha", not {stability!r}')
    note = "" if stability == "stable" else f"PublicAPI ({stability}): it may change before it is stable."
    return _decorator(args, AnnotationType.PUBLIC_API, note, api_group)


def DeveloperAPI(*args: Any) -> Any:  # noqa: N802 -- Ray's name
    """For authors of libraries: `@DeveloperAPI`."""
    return _decorator(args, AnnotationType.DEVELOPER_API, "DeveloperAPI: it may change between minor versions.")


def Deprecated(*args: Any, message: str = "", warning: bool = False) -> Any:  # noqa: N802 -- Ray's name
    """Not to be used any more: `@Deprecated`, or `@Deprecated(message="use f", warning=True)`, which warns when it is called."""
    note = " ".join(part for part in ("Deprecated:", message or "it may be removed.") if part)
    mark = functools.partial(_marked, type_=AnnotationType.DEPRECATED, note=note, group="Others")
    if args and not (len(args) == 1 and callable(args[0])):
        raise ValueError(f"@Deprecated takes `message` and `warning` by name, not {args!r:.80}")
    wrap: Callable[[Any], Any] = (lambda target: mark(_warning(target, note))) if warning else mark
    return wrap(args[0]) if args else wrap


def _decorator(args: tuple[Any, ...], type_: AnnotationType, note: str, group: str = "Others") -> Any:
    if len(args) == 1 and callable(args[0]):
        return _marked(args[0], type_, note, group)
    if args:
        raise ValueError(f"@{type_.value} is put on a function or class, or takes its options by name, not {args!r:.80}")
    return lambda target: _marked(target, type_, note, group)


def _marked(target: T, type_: AnnotationType, note: str, group: str) -> T:
    if note:
        target.__doc__ = f"{inspect.cleandoc(target.__doc__ or '')}\n\n{note}".lstrip("\n")
    marked: Any = target
    marked._annotated, marked._annotated_type, marked._annotated_api_group = marked.__name__, type_, group
    return target


def _warning(target: Any, note: str) -> Any:
    """`target` with a warning where it is called, or, if it is a class, made."""
    function = target.__init__ if inspect.isclass(target) else target

    @functools.wraps(function)
    def warned(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"{target.__name__}: {note}", RayDeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    if not inspect.isclass(target):
        return warned
    setattr(target, "__init__", warned)  # noqa: B010 -- a type checker takes the plain line for a mistake
    return target


__all__ = ["AnnotationType", "Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]
