"""Actors of one node: each epoch holds its resources and one worker for life. Pure. Whether there is a next epoch the head decides.

PlaceActor -> waits for a fresh worker -> StartActor sent -> ActorStarted | ActorFailed -> ... -> ActorLost
"""

from __future__ import annotations

from collections import Counter

from nbray import config
from nbray.ids import ActorId, Address
from nbray.node.bundles import Bundles
from nbray.node.environments import Standing
from nbray.node.ground import Ground
from nbray.node.records import ActorLife, Phase, Worker
from nbray.node.stock import Stock
from nbray.wire.messages import (
    ActorExiting,
    ActorFailed,
    ActorLost,
    ActorStarted,
    ActorUnplaced,
    Death,
    EndActor,
    Failure,
    PlaceActor,
    StartActor,
)


class ActorDesk:
    """Epochs of actors by (actor, epoch). `settle` gives fresh workers to those that wait."""

    def __init__(self, ground: Ground, bundles: Bundles) -> None:
        self.ground = ground
        self.bundles = bundles
        self.lives: dict[tuple[ActorId, int], ActorLife] = {}
        self.dropped = 0  #: events about epochs that are over

    # -- events

    def place(self, said: PlaceActor) -> None:
        self.ground.placements += 1
        devices = self.ground.devices
        spec, key = said.spec, (said.spec.actor, said.epoch)
        if key in self.lives:
            self.dropped += 1
        elif (stock := self.bundles.room_for(spec.placement, spec.running)) is None or devices.choose(spec.running) is None:
            self.ground.send(self.ground.head, ActorUnplaced(spec.actor, said.epoch, self.ground.me.node))
        else:
            self.lives[key] = ActorLife(spec, said.epoch, stock.hold(spec.running), stock, devices.take(spec.running))

    def started(self, said: ActorStarted) -> None:
        self._relay(said)

    def failed(self, said: ActorFailed) -> None:
        if (life := self.lives.get((said.actor, said.epoch))) is not None:
            life.failed = True
        self._relay(said)

    def exiting(self, said: ActorExiting, now: float) -> None:
        """The actor ends on purpose; its process has ACTOR_EXIT_S for its hooks."""
        life = self.lives.get((said.actor, said.epoch))
        if life is None or life.worker is None:
            self.dropped += 1
            return
        life.intended = life.intended or said.reason or "exit_actor"
        self._give_up(life.worker, life.intended, now)

    def end(self, said: EndActor, now: float) -> None:
        life = self.lives.get((said.actor, said.epoch))
        if life is None:
            self.dropped += 1
            return
        life.intended = life.intended or said.reason or "ended"
        if life.worker is None:
            self._close(life, Death(bytes(8), self.ground.me.node, reason=life.intended))
        elif said.kill:
            self.ground.pool.kill(self.ground.pool[life.worker], life.intended, now, self.ground.out)
        else:
            self.ground.pool.ask_to_end(self.ground.pool[life.worker], life.intended, now, None, self.ground.out)

    def bundle_gone(self, stock: Stock, reason: str, now: float) -> None:
        """The bundle was released: what lives in it ends."""
        for actor, epoch in [key for key, life in self.lives.items() if life.stock is stock]:
            self.end(EndActor(actor, epoch, True, reason), now)

    def worker_gone(self, worker: Worker, death: Death) -> None:
        life = self.lives.get(worker.actor) if worker.actor is not None else None
        if life is not None:
            self._close(life, death)

    def _relay(self, said: ActorStarted | ActorFailed) -> None:
        if (said.actor, said.epoch) in self.lives:
            self.ground.send(self.ground.head, said)
        else:
            self.dropped += 1

    def _give_up(self, process: bytes, reason: str, now: float) -> None:
        worker = self.ground.pool[process]
        worker.ending = worker.ending or reason
        worker.phase, worker.since, worker.kill_at = Phase.ENDING, now, now + config.ACTOR_EXIT_S

    def _close(self, life: ActorLife, death: Death) -> None:
        life.stock.release(life.held)
        self.ground.devices.give(life.devices, life.spec.running)
        del self.lives[life.spec.actor, life.epoch]
        if not life.failed:
            self.ground.send(self.ground.head, ActorLost(life.spec.actor, life.epoch, death, bool(life.intended)))

    # -- decisions

    def settle(self, now: float) -> Counter[str]:
        """Start what has a fresh worker. Returns how many actors lack one, by the command that starts it."""
        missing: Counter[str] = Counter()
        if self.ground.closed:
            return missing
        for life in [life for life in self.lives.values() if life.worker is None]:
            command, env = "", life.spec.env
            if env and (made := self.ground.environments.want(env, now, self.ground.out)) is not None:
                if made.standing is Standing.FAILED:
                    self._fail(life, Failure("RuntimeEnvSetupError", message=made.reason), made.reason)
                if made.standing is not Standing.READY:
                    continue
                command = made.command
            worker = self.ground.pool.fresh(command)
            if worker is None:
                missing[command] += 1
                continue
            worker.phase, worker.since, worker.actor = Phase.ACTOR, now, (life.spec.actor, life.epoch)
            life.worker = worker.process
            self.ground.send(Address(self.ground.me.node, worker.process), StartActor(life.spec, life.epoch, life.devices))
        return missing

    def end_what_others_may_run(self, reason: str, now: float) -> None:
        """Kill the actors that the head would start again elsewhere if this node were taken for dead."""
        for life in list(self.lives.values()):
            if life.spec.max_restarts and life.worker is not None:
                self.ground.pool.kill(self.ground.pool[life.worker], reason, now, self.ground.out)

    def fail_waiting(self, reason: str) -> None:
        """No worker will come: the pool has stopped, or the node has."""
        for life in [life for life in self.lives.values() if life.worker is None]:
            self._fail(life, Failure("ActorDiedError", message=f"{life.spec.class_name} could not start: {reason}"), reason)

    def _fail(self, life: ActorLife, failure: Failure, reason: str) -> None:
        """It will not start here."""
        life.failed = True
        self.ground.send(self.ground.head, ActorFailed(life.spec.actor, life.epoch, failure))
        self._close(life, Death(bytes(8), self.ground.me.node, reason=reason))

    def check(self) -> None:
        for key, life in self.lives.items():
            worker = self.ground.pool.get(life.worker) if life.worker is not None else None
            assert life.worker is None or (worker is not None and worker.actor == key), f"actor {key} has no worker"
            lent = {"CPU"} if worker is not None and worker.blocked else set()
            assert {k: v for k, v in life.held.items() if v} == {k: v for k, v in life.spec.running.items() if v and k not in lent}
        for worker in self.ground.pool.workers.values():
            assert worker.actor is None or worker.actor in self.lives, f"worker {worker.process.hex()} names an actor that is gone"
