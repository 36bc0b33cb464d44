"""Scripts drawn from a seed: what drivers do, in tens of actions, and in every combination that the API has."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from nbray.testing.process import Failed, Process, Ref, TimedOut
from nbray.testing.programs import ActorProgram, Program

#: Of the functions 0 to 5; now and then one takes as long as another.
DURATIONS_S = (0.0, 0.0005, 0.001, 0.01, 0.05, 0.3)


def random_program(chance: random.Random, cpus: int, depth: int = 2, *, violent: bool = True) -> Program:
    """A task with children down to `depth`."""
    children = []
    if depth and chance.random() < 0.35:
        children = [random_program(chance, cpus, depth - 1, violent=violent) for _ in range(chance.randint(1, 3))]
    certain = chance.random() < 0.4
    raises = chance.choice([0] * 8 + [1, 2]) if not certain else 0
    function = chance.randrange(len(DURATIONS_S))
    return Program(
        number=chance.randint(0, 10**6),
        duration_s=DURATIONS_S[function] if chance.random() < 0.8 else chance.choice(DURATIONS_S),
        function=function,
        stored_bytes=chance.choice([0, 0, 0, 64, 800, 6000]),
        cpus=chance.choice([1.0, 1.0, 1.0, 0.5, float(cpus)]),
        children=children,
        gets=chance.random() < 0.7,
        retries=-1 if certain else chance.choice([0, 1, 3]),
        retry_exceptions=raises > 0 and chance.random() < 0.6,
        raises=raises,
        crashes=1 if violent and chance.random() < 0.04 else 0,
        stubborn=chance.random() < 0.1,
        nested=chance.choice(["ignore", "read", "return"]),
        max_calls=chance.choice([0] * 6 + [1, 2]),
    )


class _Script:
    """One driver's doings. `held` are the references that it has; `actors` those that stand for actors."""

    def __init__(self, driver: Process, chance: random.Random, cpus: int, actor_cpus: int) -> None:
        self.driver, self.chance, self.cpus, self._actor_cpus = driver, chance, cpus, actor_cpus
        self.held: list[Ref] = []
        self.actors: list[Ref] = []
        self.violent = chance.random() < 0.5
        #: A call that waits for an earlier one, which is repeated behind it, waits for ever: a script has one sort or the other.
        self._calls_repeat = chance.random() < 0.5

    def run(self, actions: int) -> Generator[Any, None, None]:
        weighted = [
            (self.submit, 10), (self.burst, 3), (self.put, 2), (self.read, 4), (self.drop, 3), (self.cancel, 1),
            (self.create, 1), (self.call, 5), (self.pause, 2), (self.look, 1), (self.end_actor, 1), (self.share_actor, 1),
        ]  # fmt: skip
        doings = [action for action, weight in weighted for _ in range(weight)]
        for _ in range(actions):
            yield from self.driver.wait_attached()
            yield from self.chance.choice(doings)()
        while self.held:
            yield from self.read_one(self.held[-1])
        for actor in self.actors:
            self.driver.drop(actor)

    # -- actions

    def submit(self) -> Generator[Any, None, None]:
        program = random_program(self.chance, self.cpus, violent=self.violent)
        self.held.append(self.driver.submit(program, self._some(2), self._some(2)))
        yield 0.0

    def burst(self) -> Generator[Any, None, None]:
        """Several short tasks at once, that share leases; some need one another, and may wait for one another."""
        refs: list[Ref] = []
        function = self.chance.randrange(3)
        limit = self.chance.choice([0, 0, 3])
        crashes_at = self.chance.randrange(8) if self.violent and self.chance.random() < 0.5 else -1
        for number in range(self.chance.randint(3, 8)):
            needs = [self.chance.choice(refs)] if refs and self.chance.random() < 0.4 else []
            nested = [self.chance.choice(refs)] if refs and self.chance.random() < 0.4 else []
            program = Program(
                number=self.chance.randint(0, 10**6),
                function=function,
                duration_s=DURATIONS_S[function],
                nested="read",
                retries=self.chance.choice([0, 1, 3, -1]),
                stored_bytes=self.chance.choice([0, 0, 64]),
                crashes=int(number == crashes_at),
                max_calls=limit,
            )
            refs.append(self.driver.submit(program, needs, nested))
        self.held += refs
        yield 0.0

    def put(self) -> Generator[Any, None, None]:
        size = self.chance.choice([0, 64, 2000, 12000])
        nested = self._some(1)
        try:
            self.held.append((yield from self.driver.put(self.chance.randint(0, 10**6), size, nested)))
        except Failed:
            # A full store, or no store any more: the books say whether it may be.
            self.driver.simulation.ledger.put_failed(self.driver)

    def read(self) -> Generator[Any, None, None]:
        if self.held:
            yield from self.read_one(self.chance.choice(self.held))

    def read_one(self, ref: Ref) -> Generator[Any, None, None]:
        """Get one, with the references in its value, and drop it."""
        self.held.remove(ref)
        try:
            fetched = (yield from self.driver.get([ref]))[0]
        except Failed:
            fetched = None
        if fetched is not None:
            self.held += fetched.refs
        self.driver.drop(ref)

    def drop(self) -> Generator[Any, None, None]:
        if self.held:
            self.driver.drop(self.held.pop(self.chance.randrange(len(self.held))))
        yield 0.0

    def cancel(self) -> Generator[Any, None, None]:
        mine = [ref for ref in self.held if ref.owner.process == self.driver.me.process]
        if mine:
            ref = self.chance.choice(mine)
            self.driver.cancel(ref, force=self.violent and self.chance.random() < 0.4, recursive=self.chance.random() < 0.8)
        yield 0.0

    def create(self) -> Generator[Any, None, None]:
        takes_cpu = self._actor_cpus > 0 and self.chance.random() < 0.5
        self._actor_cpus -= takes_cpu
        program = ActorProgram(
            cpus=float(takes_cpu),
            init_s=self.chance.choice([0.0, 0.01, 0.1]),
            max_restarts=self.chance.choice([0, 1, -1]),
            max_concurrency=self.chance.choice([1, 1, 3]),
            raises=self.chance.random() < 0.1,
            groups={"io": 2} if self.chance.random() < 0.3 else {},
            unordered=self.chance.random() < 0.3,
        )
        self.actors.append(self.driver.create_actor(program, self._some(1)))
        yield 0.0

    def call(self) -> Generator[Any, None, None]:
        if not self.actors:
            yield from self.create()
        program = random_program(self.chance, self.cpus, depth=1, violent=self.violent)
        changes: dict[str, Any] = {"stored_bytes": 0, "retries": self.chance.choice([0, 0, 1, -1]), "cpus": 1.0}
        if changes["retries"] == -1 or not self._calls_repeat:
            changes["retry_exceptions"] = False  # with -1, an argument that fails would be tried for ever
        elif program.nested == "read":
            changes["nested"] = "ignore"
        if self.violent and self.chance.random() < 0.05:
            changes["exits"] = True
        if self.chance.random() < 0.3:
            changes["nested"] = "keep"
        actor = self.chance.choice(self.actors)
        what = self.driver.simulation.ledger.actor_program(actor.id[:16])
        changes["group"] = self.chance.choice(["", *what.groups])
        if what.unordered and changes.get("nested", program.nested) == "read":
            changes["nested"] = "ignore"  # out of order, it could begin before the call that it waits for, and hold its place
        changed = Program(**{name: changes.get(name, getattr(program, name)) for name in program.__struct_fields__})
        self.held.append(self.driver.call(actor, changed, self._some(1), self._some(1)))
        yield 0.0

    def end_actor(self) -> Generator[Any, None, None]:
        if self.actors:
            actor = self.actors.pop(self.chance.randrange(len(self.actors)))
            if self.violent and self.chance.random() < 0.5:
                self.driver.kill_actor(actor, no_restart=self.chance.random() < 0.5)
            self.driver.drop(actor)
        yield 0.0

    def share_actor(self) -> Generator[Any, None, None]:
        """Somebody else holds a handle for a while."""
        if self.actors:
            program = Program(number=1, duration_s=0.02, nested="ignore", cpus=1.0)
            self.held.append(self.driver.submit(program, [], [self.chance.choice(self.actors)]))
        yield 0.0

    def pause(self) -> Generator[Any, None, None]:
        yield self.chance.choice([0.001, 0.02, 0.2, 0.5])

    def look(self) -> Generator[Any, None, None]:
        """A `get` that gives up."""
        if self.held:
            ref = self.chance.choice(self.held)
            try:
                fetched = (yield from self.driver.get([ref], timeout_s=self.chance.choice([0.0, 0.005, 0.1])))[0]
                self.held += fetched.refs
            except (Failed, TimedOut):
                yield 0.0

    def _some(self, most: int) -> list[Ref]:
        count = min(len(self.held), self.chance.choice([0, 0, *range(most + 1)]))
        return self.chance.sample(self.held, count)


def random_script(
    chance: random.Random, actions: int, cpus: int, actor_cpus: int = 0
) -> Callable[[Process], Generator[Any, None, None]]:
    """A script of so many actions for one driver; at its end everything is read and dropped. Its tasks need up to `cpus`, its
    actors hold up to `actor_cpus` in all: of one host, both must leave room for the other."""
    return lambda driver: _Script(driver, chance, cpus, actor_cpus).run(actions)
