"""Every row, in the order of the table."""

from __future__ import annotations

from benchmarks.rows_actors import THOUSAND_ACTORS
from benchmarks.rows_cards import CARDS
from benchmarks.rows_notebook import NOTEBOOK
from benchmarks.rows_objects import LARGE
from benchmarks.rows_plan import PLAN
from benchmarks.rows_scale import HEAD, QUEUED
from benchmarks.rows_startup import STARTUP, WORKER
from benchmarks.rows_transfer import TRANSFER
from nbray.microbenchmark.actors import ACTORS, ASYNC_ACTORS
from nbray.microbenchmark.calls import CALLS, STREAMS
from nbray.microbenchmark.objects import OBJECTS
from nbray.microbenchmark.row import Block

BLOCKS: tuple[Block, ...] = (
    *(
        OBJECTS,
        CALLS,
        STREAMS,
        ACTORS,
        ASYNC_ACTORS,
        STARTUP,
        WORKER,
        LARGE,
        QUEUED,
        THOUSAND_ACTORS,
        CARDS,
        NOTEBOOK,
        PLAN,
        TRANSFER,
        HEAD,
    ),
)
