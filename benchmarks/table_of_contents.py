"""Every row, in the order of the table."""

from __future__ import annotations

from benchmarks.row import Block
from benchmarks.rows_actors import ACTORS, ASYNC_ACTORS
from benchmarks.rows_calls import CALLS, STREAMS
from benchmarks.rows_notebook import NOTEBOOK
from benchmarks.rows_objects import LARGE, OBJECTS
from benchmarks.rows_plan import PLAN
from benchmarks.rows_scale import HEAD, QUEUED
from benchmarks.rows_startup import STARTUP, WORKER
from benchmarks.rows_transfer import TRANSFER

BLOCKS: tuple[Block, ...] = (
    *(OBJECTS, CALLS, STREAMS, ACTORS, ASYNC_ACTORS, STARTUP, WORKER, LARGE, QUEUED, NOTEBOOK, PLAN, TRANSFER, HEAD),
)
