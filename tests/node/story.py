"""One NodeState with short words for what happens to it. `check()` runs after every event; a failure prints the story."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from nbray.ids import HEAD, Address
from nbray.machine import Effect, Send, Tick
from nbray.node import records as r
from nbray.node.state import NodeState
from nbray.sched.resources import to_amounts
from nbray.wire import messages as m

M = TypeVar("M")
E = TypeVar("E")


def ident(name: str) -> bytes:
    """Eight bytes that begin with a name."""
    return name.encode().ljust(8, b"\0")


def address(process: str, node: str = "me") -> Address:
    return Address(ident(node), ident(process))


def info(node: str = "me", **resources: float) -> m.NodeInfo:
    total = to_amounts(resources)
    return m.NodeInfo(node=ident(node), host=node, pid=1, total=total, available=dict(total))


def shape(strategy: str = "DEFAULT", node: str = "", soft: bool = False, env: str = "", **resources: float) -> m.Shape:
    return m.Shape(to_amounts(resources or {"CPU": 1}), strategy, ident(node) if node else b"", soft, env)


def actor_spec(name: str, running: dict[str, float] | None = None, owner: Address | None = None) -> m.ActorSpec:
    return m.ActorSpec(
        actor=name.encode().ljust(16, b"\0"),
        owner=owner or address("d"),
        job=address("d"),
        class_name=name,
        class_id=bytes(16),
        class_payload=b"",
        class_crc=0,
        args=b"",
        crc=0,
        dependencies=[],
        contains=[],
        placement=shape(CPU=1),
        running=to_amounts(running or {}),
    )


class Story:
    """Node "me", and its effects since they were last asked for. Time moves only by `wait`."""

    def __init__(self, head: str = "me", embedded: bool = False, **resources: float) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.effects: list[Effect] = []
        self.pids = 1000
        self.state = NodeState(info(**(resources or {"CPU": 2})), Address(ident(head), HEAD), embedded=embedded)
        self.tell(r.Begun())

    def tell(self, event: Any) -> None:
        self.told.append(f"{self.now:8.2f}  {event}")
        new = self.state.handle(event, self.now)
        self.told += [f"          -> {effect}" for effect in new]
        self.effects += new
        try:
            self.state.check()
        except AssertionError as error:
            raise AssertionError(f"{error}; the story:\n" + "\n".join(self.told)) from error

    def wait(self, seconds: float) -> None:
        """Let time pass, with a Tick at every deadline on the way."""
        until = self.now + seconds
        for _ in range(10_000):
            due = self.state.next_deadline()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.tell(Tick())
        else:
            raise AssertionError(f"the machine wants a Tick again and again at {self.now}")
        self.now = until

    # -- what came out

    def sent(self, kind: type[M]) -> list[M]:
        """Take the messages of this kind out of what was sent, oldest first."""
        return [send.message for send in self._take(lambda e: isinstance(e, Send) and isinstance(e.message, kind))]

    def sent_to(self, to: Address, kind: type[M]) -> list[M]:
        return [send.message for send in self._take(lambda e: isinstance(e, Send) and e.to == to and isinstance(e.message, kind))]

    def ordered(self, kind: type[E]) -> list[E]:
        """Take the effects of this kind, oldest first."""
        return self._take(lambda e: isinstance(e, kind))

    def _take(self, wanted: Any) -> list[Any]:
        taken = [effect for effect in self.effects if wanted(effect)]
        self.effects = [effect for effect in self.effects if not wanted(effect)]
        return taken

    # -- what happens

    def greet_all(self) -> None:
        """Every worker that was ordered says Hello, and those that this leads to as well."""
        while starts := self.ordered(r.StartWorker):
            for start in starts:
                self.greet(start.process)

    def greet(self, process: bytes) -> None:
        self.pids += 1
        self.tell(r.WorkerHello(process, self.pids))

    def exit(self, process: bytes, signal: int | None = 9, code: int | None = None, **fields: Any) -> None:
        self.tell(r.WorkerExited(process, m.Death(process, ident("me"), 1, signal, code, **fields)))

    def drive(self, name: str = "d") -> Address:
        self.tell(r.DriverHello(ident(name), 7, name, ""))
        return address(name)

    def request(self, number: int, what: m.Shape | None = None, owner: Address | None = None, **fields: Any) -> None:
        owner = owner or address("d")
        said = m.RequestLease(number, owner, what or shape(), job=fields.pop("job", owner.process))
        self.tell(msgspec.structs.replace(said, **fields))

    def lease(self, number: int, what: m.Shape | None = None, owner: Address | None = None, **fields: Any) -> m.LeaseGranted:
        """Request, start what it takes, and take the grant. Fails if there is none."""
        self.request(number, what, owner, **fields)
        self.greet_all()
        granted = [grant for grant in self.sent(m.LeaseGranted) if grant.request == number]
        assert granted, "no lease was granted; the story:\n" + "\n".join(self.told)
        return granted[0]

    def give_back(self, lease: m.LeaseGranted, owner: Address | None = None, broken: bool = False, spent: bool = False) -> None:
        self.tell(m.ReturnLease(lease.lease, (owner or address("d")).process, broken, spent))

    def view(self, *others: m.NodeInfo) -> None:
        self.tell(m.ClusterView([self.state.ground.info(), *others]))

    @property
    def free(self) -> dict[str, float]:
        return {name: units / 10_000 for name, units in self.state.ground.free.items()}
