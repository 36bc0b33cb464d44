"""Tasks: Ray's rows, doing the work that `ray microbenchmark` does, against any module with Ray's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nbray.microbenchmark.row import Block, rate

#: Ray has 10,000 calls in each of these clients; a tenth takes a tenth of the time, for both.
CLIENTS, CALLS_EACH = 4, 1000


def _small(api: Any) -> Any:
    # Functions are made inside functions throughout: they travel by value, and workers need not find this package.
    @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
    def small_value() -> bytes:
        return b"ok"

    return small_value


def one_at_a_time(api: Any) -> Iterator[Callable[[], object]]:
    small = _small(api)
    yield lambda: api.get(small.remote())


def a_thousand(api: Any) -> Iterator[Callable[[], object]]:
    small = _small(api)
    yield lambda: api.get([small.remote() for _ in range(1000)])


def from_actors(api: Any) -> Iterator[Callable[[], object]]:
    small = _small(api)

    class Submitter:
        def batch(self, n: int) -> None:
            api.get([small.remote() for _ in range(n)])

    submitter = api.remote(num_cpus=0)(Submitter)
    actors = [submitter.remote() for _ in range(CLIENTS)]
    yield lambda: api.get([a.batch.remote(CALLS_EACH) for a in actors])
    for actor in actors:
        api.kill(actor)


def wait_for_each(api: Any) -> Iterator[Callable[[], object]]:
    small = _small(api)

    def wait_1000() -> None:
        rest = [small.remote() for _ in range(1000)]
        fetch = True
        while rest:
            _, rest = api.wait(rest, fetch_local=fetch)
            fetch = False

    yield wait_1000


def a_stream(api: Any) -> Iterator[Callable[[], object]]:
    @api.remote  # type: ignore[untyped-decorator]
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):  # noqa: UP028 -- Ray resumes what is delegated to with `send`, and ranges have none
            yield i

    yield lambda: [api.get(ref) for ref in numbers.remote(1000)]


def placement_groups(api: Any) -> Iterator[Callable[[], object]]:
    def make_100() -> None:
        groups = [api.util.placement_group(bundles=[{"custom": 0.001}]) for _ in range(100)]
        for group in groups:
            group.wait(timeout_seconds=30)
        for group in groups:
            api.util.remove_placement_group(group)

    yield make_100


CALLS = Block(
    "calls",
    "Tasks",
    (
        rate("single client tasks sync", 1, one_at_a_time, target=7, bound="one at a time"),
        rate("single client tasks async", 1000, a_thousand, target=15, bound="calls"),
        rate("single client tasks and get batch (1,000)", 1, a_thousand, target=12),
        rate("single client wait 1k refs", 1, wait_for_each, target=8),
        rate("multi client tasks async", CLIENTS * CALLS_EACH, from_actors, target=8, bound="calls"),
        rate("placement group create/removal", 100, placement_groups, target=4),
    ),
    is_rays=True,
    first="objects",
)

STREAMS = Block("streams", "Generators", (rate("items of one generator, each fetched", 1000, a_stream, target=2),), first="objects")
