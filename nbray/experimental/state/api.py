"""`ray.experimental.state.api`, where older Ray had its State API."""

from __future__ import annotations

from nbray.util.state import *  # noqa: F403 -- the same names
