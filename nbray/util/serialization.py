"""Serializers of the user's own for classes that do not pickle as they are, or not well."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

_before: dict[type, Any] = {}  #: reducers that ours replaced


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickle instances of exactly `cls` as `serializer(instance)`, and make them again with `deserializer` of that.

    For everything that this process pickles from now on; other processes need not know. `deserializer` travels with each value.
    Registering again replaces.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer takes a class, not {cls!r}")

    def reduce(instance: Any) -> tuple[Any, ...]:
        return deserializer, (serializer(instance),)

    # The table that the C pickler and cloudpickle both read: a table of cloudpickle's own would miss whatever the former takes.
    _before.setdefault(cls, copyreg.dispatch_table.get(cls))
    copyreg.dispatch_table[cls] = reduce


def deregister_serializer(cls: type) -> None:
    """Pickle instances of `cls` as before. Does nothing when no serializer was registered."""
    if cls not in _before:
        return
    earlier = _before.pop(cls)
    if earlier is None:
        copyreg.dispatch_table.pop(cls, None)
    else:
        copyreg.dispatch_table[cls] = earlier
