"""Processes of other nodes that somebody here waits for: are their nodes in the cluster at all? Pure.

Whoever was here when a node died has been told (NodeDied). A process that began later, or a driver whose cluster was started
again, may hold references to what was there all the same, and the daemon that could answer for it is gone.
"""

from __future__ import annotations

from nbray.ids import NodeId, short
from nbray.node.ground import Ground
from nbray.wire.messages import Death, ProcessDied, WatchProcess

#: A node that is not in the view of the cluster for this long is none of its members, and not merely new.
UNKNOWN_S = 5.0


class Elsewhere:
    """Questions about nodes that are not in the view."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._asked: dict[NodeId, tuple[float, list[WatchProcess]]] = {}

    def watch(self, said: WatchProcess, now: float) -> None:
        if said.node not in self.ground.others:
            self._asked.setdefault(said.node, (now, []))[1].append(said)

    def settle(self, now: float) -> None:
        for node, (since, questions) in list(self._asked.items()):
            if node in self.ground.others:
                del self._asked[node]  # from now on its death will be told
            elif now >= since + UNKNOWN_S:
                del self._asked[node]
                for said in questions:
                    death = Death(said.process, node, reason=f"its node {short(node)} is not in the cluster")
                    self.ground.send(said.watcher, ProcessDied(death))

    def deadline(self) -> float | None:
        return min((since + UNKNOWN_S for since, _ in self._asked.values()), default=None)
