"""What arguments a remote function or method takes: checked where it is called, so that a mistake is an error in that line.

A shape has no defaults and no annotations in it: it travels with handles to processes that could not load those.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

ANY = 2**62  #: more arguments than anybody passes
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CallShape(msgspec.Struct, frozen=True):
    """`least` to `most` positional arguments and no keywords are right without a closer look; the rest asks `check`."""

    least: int = 0
    most: int = ANY
    parameters: tuple[tuple[str, int, bool], ...] | None = None  #: (name, inspect's kind, required); None: takes anything

    @classmethod
    def of(cls, function: Callable[..., Any], *, bound: bool = False) -> CallShape:
        """The shape of `function`; `bound` leaves its first parameter (self) out."""
        try:
            found = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # some built-ins have no signature to look at: the worker will find out
            return cls()
        if bound and found and found[0].kind in _POSITIONAL:
            del found[0]
        positional = [p for p in found if p.kind in _POSITIONAL]
        least = sum(p.default is p.empty for p in positional)
        most = ANY if any(p.kind is p.VAR_POSITIONAL for p in found) else len(positional)
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in found):
            least = ANY + 1  # no call without keywords is right
        return cls(least, most, tuple((p.name, int(p.kind), p.default is p.empty) for p in found))

    def check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise the TypeError that calling `name` with these arguments would raise."""
        if self.parameters is None or self._accepts(len(args), kwargs):
            return
        signature = inspect.Signature(
            [
                inspect.Parameter(n, inspect._ParameterKind(kind), default=inspect.Parameter.empty if required else None)
                for n, kind, required in _with_varargs_optional(self.parameters)
            ]
        )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None

    def _accepts(self, count: int, kwargs: Mapping[str, Any]) -> bool:
        if count > self.most:
            return False
        unused, open_ended = len(kwargs), False
        for position, (name, kind, required) in enumerate(self.parameters or ()):
            if kind == inspect.Parameter.VAR_KEYWORD:
                open_ended = True
            elif kind != inspect.Parameter.VAR_POSITIONAL:
                by_position = position < count and kind in _POSITIONAL
                by_name = name in kwargs and kind != inspect.Parameter.POSITIONAL_ONLY
                if (by_position and by_name) or (required and not by_position and not by_name):
                    return False
                unused -= by_name
        return unused == 0 or open_ended


def _with_varargs_optional(parameters: tuple[tuple[str, int, bool], ...]) -> list[tuple[str, int, bool]]:
    """*args and **kwargs may not have a default, which is how inspect writes "not required"."""
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [(name, kind, required or kind in many) for name, kind, required in parameters]
