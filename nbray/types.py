"""`ray.types`: names for annotations."""

from __future__ import annotations

from nbray.refs import ObjectRef

__all__ = ["ObjectRef"]
