"""The head's key-value store, under the names by which libraries of Ray use its own. Keys and values are bytes, or text."""

from __future__ import annotations

from typing import Any

from nbray import session
from nbray.connection import attached

Bytes = bytes | str


def _ask(what: str, namespace: Bytes | None, **arguments: Any) -> Any:
    space = namespace.decode() if isinstance(namespace, bytes) else namespace or ""
    return attached("experimental.internal_kv").ask(what, namespace=space, **arguments)


def _bytes(value: Bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _internal_kv_initialized() -> bool:
    return session.engine is not None


def _internal_kv_get(key: Bytes, *, namespace: Bytes | None = None) -> bytes | None:
    found: bytes | None = _ask("kv_get", namespace, key=_bytes(key))
    return found


def _internal_kv_exists(key: Bytes, *, namespace: Bytes | None = None) -> bool:
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(key: Bytes, value: Bytes, overwrite: bool = True, *, namespace: Bytes | None = None) -> bool:
    """Returns whether the key was there already; without `overwrite` its value stays then."""
    known = _internal_kv_exists(key, namespace=namespace)
    written = _ask("kv_put", namespace, key=_bytes(key), value=_bytes(value), overwrite=overwrite)
    return known or not written


def _internal_kv_del(key: Bytes, *, del_by_prefix: bool = False, namespace: Bytes | None = None) -> int:
    """Returns how many were deleted."""
    return int(_ask("kv_del", namespace, key=_bytes(key), by_prefix=del_by_prefix))


def _internal_kv_list(prefix: Bytes, *, namespace: Bytes | None = None) -> list[bytes]:
    found: list[bytes] = _ask("kv_keys", namespace, prefix=_bytes(prefix))
    return found
