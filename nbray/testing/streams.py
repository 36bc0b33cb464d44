"""Scripts of generators, drawn from a seed: read to the end, read in part, dropped, cancelled, repeated, of tasks and of actors."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from nbray.testing.process import Failed, Process, Ref
from nbray.testing.programs import ActorProgram
from nbray.testing.workload import random_program


class _Reader:
    """One driver that reads generators, several at a time."""

    def __init__(self, driver: Process, chance: random.Random, cpus: int) -> None:
        self.driver, self.chance, self.cpus = driver, chance, cpus
        self.open: list[tuple[Ref, list[int]]] = []  #: ends of generators, and how many items of each were taken
        self.held: list[Ref] = []
        self.actor: Ref | None = None
        self.violent = chance.random() < 0.5

    def run(self, actions: int) -> Generator[Any, None, None]:
        doings = [self.start, self.start, self.take, self.take, self.take, self.finish, self.leave, self.cancel, self.read]
        for _ in range(actions):
            yield from self.driver.wait_attached()
            yield from self.chance.choice(doings)()
        while self.open:
            yield from self.finish()
        while self.held:
            yield from self.read()
        if self.actor is not None:
            self.driver.drop(self.actor)

    def start(self) -> Generator[Any, None, None]:
        """A generator task, or a generator method."""
        chance = self.chance
        program = random_program(chance, self.cpus, depth=1, violent=self.violent)
        program = msgspec.structs.replace(program, yields=chance.randint(1, 6), window=chance.choice([-1, -1, 1, 2]))
        needs = [chance.choice(self.held)] if self.held and chance.random() < 0.3 else []
        nested = [chance.choice(self.held)] if self.held and chance.random() < 0.3 else []
        if chance.random() < 0.6:
            end = self.driver.submit(program, needs, nested)
        else:
            if self.actor is None:
                restarts = chance.choice([0, 1, -1])
                self.actor = self.driver.create_actor(ActorProgram(max_restarts=restarts, max_concurrency=chance.choice([1, 3])))
            call = msgspec.structs.replace(program, retry_exceptions=False, cpus=1.0, retries=chance.choice([0, 1]), window=-1)
            end = self.driver.call(self.actor, call, needs, nested)
        self.open.append((end, [0]))
        yield 0.0

    def take(self) -> Generator[Any, None, None]:
        if self.open:
            yield from self._take(self.chance.choice(self.open))

    def finish(self) -> Generator[Any, None, None]:
        """One generator to its end."""
        if self.open:
            one = self.chance.choice(self.open)
            while one in self.open:
                yield from self._take(one)

    def _take(self, one: tuple[Ref, list[int]]) -> Generator[Any, None, None]:
        end, taken = one
        item = yield from self.driver.take_item(end)
        if item is None:
            self.driver.simulation.ledger.streamed(self.driver, end.id, taken[0], failed=taken[0] < 0)
            self._close(one)
        elif self.chance.random() < 0.5:
            self.held.append(item)
            taken[0] += 1
            if self._has_failed(item):
                taken[0] = -100
        elif not (yield from self._read(item)):
            taken[0] = -100
        else:
            taken[0] += 1

    def _has_failed(self, item: Ref) -> bool:
        value = self.driver.state.objects.objects[item.id].value
        return value is not None and value.failure is not None

    def leave(self) -> Generator[Any, None, None]:
        """A generator is dropped with what is left in it."""
        if self.open and self.chance.random() < 0.5:
            self._close(self.chance.choice(self.open))
        yield 0.0

    def _close(self, one: tuple[Ref, list[int]]) -> None:
        self.open.remove(one)
        self.driver.drop_stream(one[0].id[:16])
        self.driver.drop(one[0])

    def cancel(self) -> Generator[Any, None, None]:
        if self.open and self.chance.random() < 0.3:
            self.driver.cancel(self.chance.choice(self.open)[0], force=self.violent and self.chance.random() < 0.3)
        yield 0.0

    def read(self) -> Generator[Any, None, None]:
        if self.held:
            yield from self._read(self.held.pop(self.chance.randrange(len(self.held))))

    def _read(self, item: Ref) -> Generator[Any, None, bool]:
        """Get an item and drop it. Whether it was a value."""
        try:
            fetched = (yield from self.driver.get([item]))[0]
        except Failed:
            fetched = None
        if fetched is not None:
            self.held += fetched.refs
        self.driver.drop(item)
        return fetched is not None


def random_streams(
    chance: random.Random, actions: int, cpus: int, _actor_cpus: int = 0
) -> Callable[[Process], Generator[Any, None, None]]:
    """As workload.random_script, of generators."""
    return lambda driver: _Reader(driver, chance, cpus).run(actions)
