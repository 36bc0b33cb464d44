"""Actors: Ray's rows, doing the work that `ray microbenchmark` does, against any module with Ray's API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from nbray.microbenchmark.row import Block, rate

#: Ray has 5,000 calls in a batch of these; both take fewer here, and the same.
BATCH, WITH_ARGUMENT, TASKS = 2000, 1000, 4
SERVERS = max(1, (os.cpu_count() or 2) // 2)


def plain(api: Any) -> Any:
    @api.remote(num_cpus=0)
    class Plain:
        def small(self) -> bytes:
            return b"ok"

        def with_argument(self, x: object) -> bytes:
            return b"ok"

    return Plain


def _async(api: Any) -> Any:
    @api.remote
    class Async:
        async def small(self) -> bytes:
            return b"ok"

        async def with_argument(self, x: object) -> bytes:
            return b"ok"

    return Async


def _client(api: Any) -> Any:
    @api.remote(num_cpus=0)
    class Client:
        def __init__(self, servers: list[Any]) -> None:
            self.servers = servers

        def batch(self, n: int) -> None:
            api.get([s.small.remote() for s in self.servers for _ in range(n)])

        def batch_with_argument(self, n: int) -> None:
            x = api.put(0)
            api.get([s.with_argument.remote(x) for s in self.servers for _ in range(n)])

    return Client


Factory = Callable[[Any], Any]


def sync(factory: Factory) -> Callable[[Any], Iterator[Callable[[], object]]]:
    def setup(api: Any) -> Iterator[Callable[[], object]]:
        actor = factory(api).remote()
        yield lambda: api.get(actor.small.remote())
        api.kill(actor)

    return setup


def thousand(factory: Factory, **options: Any) -> Callable[[Any], Iterator[Callable[[], object]]]:
    def setup(api: Any) -> Iterator[Callable[[], object]]:
        actor = factory(api).options(**options).remote()
        yield lambda: api.get([actor.small.remote() for _ in range(1000)])
        api.kill(actor)

    return setup


def thousand_with_arguments(api: Any) -> Iterator[Callable[[], object]]:
    actor = _async(api).remote()
    yield lambda: api.get([actor.with_argument.remote(i) for i in range(1000)])
    api.kill(actor)


def one_client(factory: Factory) -> Callable[[Any], Iterator[Callable[[], object]]]:
    def setup(api: Any) -> Iterator[Callable[[], object]]:
        servers = [factory(api).remote() for _ in range(SERVERS)]
        client = _client(api).remote(servers)
        yield lambda: api.get(client.batch.remote(BATCH))
        for actor in [client, *servers]:
            api.kill(actor)

    return setup


def many_clients(factory: Factory) -> Callable[[Any], Iterator[Callable[[], object]]]:
    def setup(api: Any) -> Iterator[Callable[[], object]]:
        servers = [factory(api).remote() for _ in range(SERVERS)]

        @api.remote  # type: ignore[untyped-decorator]  # whichever module it is
        def work(actors: list[Any]) -> None:
            api.get([actors[i % len(actors)].small.remote() for i in range(BATCH)])

        yield lambda: api.get([work.remote(servers) for _ in range(TASKS)])
        for actor in servers:
            api.kill(actor)

    return setup


def many_clients_with_argument(api: Any) -> Iterator[Callable[[], object]]:
    servers = [plain(api).remote() for _ in range(SERVERS)]
    clients = [_client(api).remote([server]) for server in servers]
    yield lambda: api.get([c.batch_with_argument.remote(WITH_ARGUMENT) for c in clients])
    for actor in [*clients, *servers]:
        api.kill(actor)


ACTORS = Block(
    "actors",
    "Actors",
    (
        rate("1:1 actor calls sync", 1, sync(plain), target=4, bound="one at a time"),
        rate("1:1 actor calls async", 1000, thousand(plain), target=6, bound="calls to one"),
        rate("1:1 actor calls concurrent", 1000, thousand(plain, max_concurrency=16), target=4, bound="calls to one"),
        rate("1:n actor calls async", BATCH * SERVERS, one_client(plain), target=4),
        rate("n:n actor calls async", BATCH * TASKS, many_clients(plain), target=4),
        rate("n:n actor calls with arg async", WITH_ARGUMENT * SERVERS, many_clients_with_argument, target=6),
    ),
    is_rays=True,
    first="objects",
)

ASYNC_ACTORS = Block(
    "async",
    "Async actors",
    (
        rate("1:1 async-actor calls sync", 1, sync(_async), target=4, bound="one at a time"),
        rate("1:1 async-actor calls async", 1000, thousand(_async), target=5, bound="calls to one"),
        rate("1:1 async-actor calls with args async", 1000, thousand_with_arguments, target=5, bound="calls to one"),
        rate("1:n async-actor calls async", BATCH * SERVERS, one_client(_async), target=4),
        rate("n:n async-actor calls async", BATCH * TASKS, many_clients(_async), target=4),
    ),
    is_rays=True,
    first="objects",
)
