"""A cluster of letters around one HeadState: events as short commands, effects as short lines. For scenarios and tests.

Nodes are "a", "b" ..., processes "d@a" (process d on node a), actors "X". `check()` runs after every event.
"""

from __future__ import annotations

import shlex
from typing import Any

from nbray.head.records import Persist, Tables
from nbray.head.state import HeadState, NodeGone
from nbray.ids import HEAD, Address
from nbray.machine import Effect, Send, Tick
from nbray.sched.resources import in_words, to_amounts
from nbray.wire import messages as m

QUIET = (m.HeartbeatTaken, m.NodeAccepted, m.ClusterView, m.Answer)


def ident(letter: str) -> bytes:
    return letter.encode().ljust(8, b"\0")


def actor_id(letter: str, owner: str = "d") -> bytes:
    """The id of actor `letter` created by process `owner`."""
    return ident(owner) + ord(letter).to_bytes(8, "big")


def letter_of(actor: bytes) -> str:
    return chr(int.from_bytes(actor[8:], "big")) if actor else ""


def address(text: str) -> Address:
    """ "d@a" is process d on node a, "a" the daemon of node a."""
    process, _, node = text.rpartition("@")
    return Address(ident(node), ident(process or node))


def letters(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def node_info(name: str, total: dict[str, float], free: dict[str, float] | None = None, placements: int = 0) -> m.NodeInfo:
    amounts = to_amounts(total)
    available = amounts if free is None else {n: amounts[n] if n not in free else to_amounts(free).get(n, 0) for n in amounts}
    return m.NodeInfo(ident(name), f"host-{name}", 100, amounts, available, placements=placements)


def spec(actor: bytes, owner: Address, job: Address, **more: Any) -> m.ActorSpec:
    placement = more.pop("placement", m.Shape({}))
    running = more.pop("running", {})
    return m.ActorSpec(actor, owner, job, "Counter", b"c" * 16, b"code", 0, b"args", 0, [], [], placement, running, **more)


class Story:
    """One head, its clock, its journal in memory, and what it said last."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.head = HeadState(Address(ident("a"), HEAD), "session")
        self.tables: Tables = {}
        self.totals: dict[str, dict[str, float]] = {}
        self.owners: dict[str, str] = {}
        self.requests = 0

    # -- machinery

    def take(self, event: Any) -> list[Effect]:
        effects = self.head.handle(event, self.now)
        self.keep(effects)
        return effects

    def keep(self, effects: list[Effect]) -> None:
        sending = False
        for effect in effects:
            if isinstance(effect, Persist):
                assert not sending, "something was sent before it was durable"
                table = self.tables.setdefault(effect.table, {})
                if effect.value is None:
                    table.pop(effect.key, None)
                else:
                    table[effect.key] = effect.value
            sending = sending or isinstance(effect, Send)
        self.head.check()

    def restart(self, node: bytes) -> list[Effect]:
        self.head, effects = HeadState.restore(Address(node, HEAD), "session", self.tables, self.now)
        self.keep(effects)
        return effects

    def tell(self, line: str) -> str:
        """Run one command and return the lines of what was sent."""
        command, *words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        return "\n".join(getattr(self, "do_" + command.replace("-", "_"))(plain, options))

    # -- commands

    def do_node(self, plain: list[str], options: dict[str, str]) -> list[str]:
        self.totals[plain[0]] = {name: float(number) for name, number in options.items()}
        return self.said(self.take(m.RegisterNode(node_info(plain[0], self.totals[plain[0]]))))

    def do_beat(self, plain: list[str], options: dict[str, str]) -> list[str]:
        placements = int(options.pop("placements", 0))
        free = {name: float(number) for name, number in options.items()}
        return self.said(self.take(m.Heartbeat(node_info(plain[0], self.totals[plain[0]], free, placements))))

    def do_wait(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """wait SECONDS beating=a,b: nodes beat every second, and Tick comes when the head asked for it."""
        until, lines = self.now + float(plain[0]), []
        while self.now < until:
            due = self.head.next_deadline()
            self.now = min(until, max(self.now + 0.001, min(due or until, self.now + 1.0)))
            for node in filter(None, options.get("beating", "").split(",")):
                lines += self.said(self.take(m.Heartbeat(node_info(node, self.totals[node]))))
            lines += [f"+{self.now - until + float(plain[0]):.0f} s {line}" for line in self.said(self.take(Tick()))]
        return lines

    def do_stop(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """stop SECONDS: the head's process is stopped; nothing reaches it meanwhile."""
        self.now += float(plain[0])
        return self.said(self.take(Tick()))

    def do_gone(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(NodeGone(ident(plain[0]), " ".join(plain[1:]))))

    def do_job(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.JobStarted(address(plain[0]), "notebook.ipynb", options.get("namespace", ""), 50)))

    def do_job_ended(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.JobEnded(address(plain[0]))))

    def do_died(self, plain: list[str], options: dict[str, str]) -> list[str]:
        process = address(plain[0])
        return self.said(self.take(m.ProcessDied(m.Death(process.process, process.node, 77, signal=9))))

    def do_actor(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """actor X d@a [detached] [soft] [get] [name= namespace= restarts= job= at= strategy= CPU= run.CPU= ...]"""
        name, owner = plain[0], plain[1]
        self.owners[name] = owner.partition("@")[0]
        facts = {key: options.pop(key, "") for key in ("name", "namespace", "restarts", "job", "at", "strategy")}
        running = {key[4:]: float(number) for key, number in options.items() if key.startswith("run.")}
        placement = {key: float(number) for key, number in options.items() if not key.startswith("run.")} | running
        strategy = "NODE" if facts["at"] else facts["strategy"] or "DEFAULT"
        shape = m.Shape(to_amounts(placement), strategy, ident(facts["at"]) if facts["at"] else b"", "soft" in plain)
        made = spec(
            actor_id(name, self.owners[name]),
            address(owner),
            address(facts["job"] or owner),
            placement=shape,
            running=to_amounts(running),
            max_restarts=int(facts["restarts"] or 0),
            name=facts["name"],
            namespace=facts["namespace"],
            detached="detached" in plain,
        )
        self.requests += 1
        return self.said(self.take(m.RegisterActor(made, self.requests, "get" in plain)))

    def do_started(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """started X w@b [epoch=]"""
        return self.said(self.take(m.ActorStarted(self.id_of(plain[0]), int(options.get("epoch", 0)), address(plain[1]), 4000)))

    def do_failed(self, plain: list[str], options: dict[str, str]) -> list[str]:
        failure = m.Failure(
            "RayTaskError",
            "ZeroDivisionError",
            "division by zero",
            "nbray::Counter.__init__() (pid=4000)\nZeroDivisionError: division by zero",
        )
        return self.said(self.take(m.ActorFailed(self.id_of(plain[0]), int(options.get("epoch", 0)), failure)))

    def do_unplaced(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.ActorUnplaced(self.id_of(plain[0]), int(options.get("epoch", 0)), ident(plain[1]))))

    def do_lost(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """lost X w@b [intended] [epoch= signal= reason=]"""
        at = address(plain[1])
        death = m.Death(
            at.process,
            at.node,
            4000,
            signal=int(options.get("signal", 9)),
            reason=options.get("reason", ""),
            log_tail=options.get("tail", ""),
        )
        return self.said(self.take(m.ActorLost(self.id_of(plain[0]), int(options.get("epoch", 0)), death, "intended" in plain)))

    def do_kill(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.KillActor(self.id_of(plain[0]), "restart" not in plain)))

    def do_release(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.ReleaseActor(self.id_of(plain[0]))))

    def do_watch(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.WatchActor(self.id_of(plain[0]), address(plain[1]))))

    def do_find(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self.said(self.take(m.FindActor(9, plain[0], options.get("namespace", ""), address("d@a"))))

    def do_restart_head(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """restart-head NODE: the head's daemon was killed and starts again, as a new node, with the journal."""
        return self.said(self.restart(ident(plain[0])))

    def do_show(self, plain: list[str], options: dict[str, str]) -> list[str]:
        directory, members = self.head.directory, self.head.members
        lines = [
            f"node {letters(r.info.node)} {'suspect' if r.suspect else 'alive'} free {in_words(r.free)}"
            for r in members.nodes.values()
        ] + [f"node {letters(r.info.node)} dead: {r.cause}" for r in members.dead.values()]
        for record in [*directory.live.values(), *directory.dead.values()]:
            where = f" on {letters(record.node)}" if record.node else ""
            why = f": {record.failure.message}" if record.failure else f": {record.waiting}" if record.waiting else ""
            lines.append(f"actor {letter_of(record.actor)} {record.state} epoch {record.epoch}{where}{why}")
        return lines

    # -- words

    def id_of(self, letter: str) -> bytes:
        return actor_id(letter, self.owners.get(letter, "d"))

    def said(self, effects: list[Effect]) -> list[str]:
        return [self.line(effect) for effect in effects if isinstance(effect, Send) and not isinstance(effect.message, QUIET)]

    def line(self, effect: Send) -> str:
        to, message = effect.to, effect.message
        where = letters(to.node) if to.node == to.process else f"{letters(to.process)}@{letters(to.node)}"
        return f"{where} <- {type(message).__name__} {self.facts(message)}".rstrip()

    def facts(self, message: Any) -> str:
        actor = letter_of(getattr(message, "actor", b""))
        match message:
            case m.ActorUpdate():
                at = f" at {letters(message.address.process)}@{letters(message.address.node)}" if message.address else ""
                why = f": {message.failure.message}" if message.failure else f": {message.waiting}" if message.waiting else ""
                return f"{actor} {message.state} epoch {message.epoch}{at}{why}"
            case m.PlaceActor():
                return f"{letter_of(message.spec.actor)} epoch {message.epoch}"
            case m.EndActor():
                return f"{actor} epoch {message.epoch} {'kill' if message.kill else 'gently'}: {message.reason}"
            case m.ActorRejected():
                return message.reason
            case m.ActorFound():
                return actor
            case m.NodeDied():
                return f"{letters(message.node)}: {message.reason}"
            case m.JobEnded():
                return f"{letters(message.driver.process)}@{letters(message.driver.node)}"
            case m.WatchProcess():
                return letters(message.process)
            case _:
                return ""
