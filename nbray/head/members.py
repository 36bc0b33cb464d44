"""Which nodes live. A node holds a lease on being alive, renewed by every Heartbeat.

    heard of -> suspect (NODE_SUSPECT_S: no new work goes there) -> dead (NODE_DEAD_S: its work is done elsewhere)

Dead is for ever: the same machine comes back as a new node, with a new id. The head's own node dies only by NodeGone.
When most of the cluster falls silent at once, the network or the head's own machine is the likelier patient, so nobody is
declared dead for `MASS_GRACE_S`. And when the head itself was stopped for a while, everyone's lease starts anew.
"""

from __future__ import annotations

import msgspec

from nbray import config
from nbray.head.records import NodeGone, NodeRecord, Persist
from nbray.ids import Address, NodeId
from nbray.machine import Effect, Send
from nbray.sched.roster import Roster
from nbray.wire.messages import ClusterView, HeartbeatTaken, Message, NodeAccepted, NodeDied, NodeInfo, NodeNews, Shape

#: More than this share of the nodes silent together is taken for one fault, not many deaths.
MASS_SHARE = 0.55
MASS_GRACE_S = 60.0
#: The head ticks every HEARTBEAT_S while it has nodes; a silence of its own this long means that it was stopped itself.
PAUSE_S = max(5.0, 5 * config.HEARTBEAT_S)
#: Many nodes that join together share one ClusterView.
JOIN_PAUSE_S = 0.05
#: Nodes told of nodes, at most, in a second: in a large cluster where much changes views come less often than heartbeats.
TOLD_PER_S = 2_000_000
#: Dead nodes kept for the listing and to refuse their late words.
DEAD_KEPT = 1000


class Members:
    """The nodes of the cluster and their leases."""

    def __init__(self, head: Address, session: str, out: list[Effect]) -> None:
        self.head = head
        self.session = session
        self.out = out
        self.nodes: dict[NodeId, NodeRecord] = {}  #: alive, in the order of joining
        self.dead: dict[NodeId, NodeRecord] = {}  #: oldest death first
        self._last_event = 0.0
        self._last_tick = 0.0
        self._viewed_at = 0.0
        self._view_due: float | None = None
        self._view_pause_s = 0.0  #: what the last view cost, as a pause before the next
        self._serial = 0  #: of the last view
        self._moved: dict[NodeId, None] = {}  #: changed since `roster` looked
        self._unsaid: dict[NodeId, None] = {}  #: changed since the last view
        self._roster = Roster()

    # -- events

    def register(self, info: NodeInfo, now: float) -> NodeRecord | None:
        """A node joins; joining twice is one joining. None, and told so, if that life has ended already."""
        if info.node in self.dead:
            self._tell_dead(self.dead[info.node])
            return None
        info = msgspec.structs.replace(info, is_head=info.node == self.head.node, alive=True, suspect=False)
        record = self.nodes.get(info.node)
        if record is None:
            record = self.nodes[info.node] = NodeRecord(info, now, moved=self._moved)
        else:
            record.reported(info, now, 2 * config.HEARTBEAT_S)
        self.out.append(Persist("nodes", info.node, msgspec.msgpack.encode(info)))
        self.send(info.node, NodeAccepted(info.node, self.session))
        self._changed(now, membership=True)
        return record

    def heartbeat(self, info: NodeInfo, now: float, sent_s: float = 0.0, *, astray: bool = False) -> NodeRecord | None:
        """Renew a lease. A node that this head has never heard of joins by it: the head is new here, not the node.

        `astray`: it has lost count of the views, and is sent a whole one.
        """
        record = self.nodes.get(info.node)
        if record is None:
            return self.register(info, now)
        info = msgspec.structs.replace(info, is_head=record.info.is_head, alive=True, suspect=False)
        membership = record.suspect or astray
        if astray:
            record.told = False
        if record.reported(info, now, 2 * config.HEARTBEAT_S) or astray:
            self._changed(now, membership=membership)
        self.send(info.node, HeartbeatTaken(info.node, sent_s))
        return record

    def bury(self, node: NodeId, reason: str, now: float) -> NodeRecord | None:
        """A node is dead: say so to all who live. Returns its record, or None if it was no member."""
        record = self.nodes.pop(node, None)
        if record is None:
            return None
        record.bury(reason)
        self.dead[node] = record
        self.out.append(Persist("nodes", node, msgspec.msgpack.encode(record.view())))
        while len(self.dead) > DEAD_KEPT:
            oldest = next(iter(self.dead))
            del self.dead[oldest]
            self.out.append(Persist("nodes", oldest, None))
        self.tell_all(NodeDied(node, reason))
        self._changed(now, membership=True)
        return record

    def notice_pause(self, now: float) -> None:
        """Renew all leases if the head was stopped (SIGSTOP, a sleeping laptop): the heartbeats it missed wait in its mailbox."""
        if now - self._last_event > PAUSE_S:
            for record in self.nodes.values():
                record.heard_at = now
        self._last_event = now

    def expire(self, now: float) -> list[NodeGone]:
        """Suspect the silent, and name those whose lease has run out."""
        self._last_tick = now
        remote = [record for record in self.nodes.values() if not record.info.is_head]
        silent = [record for record in remote if now - record.heard_at >= config.NODE_SUSPECT_S]
        for record in silent:
            if not record.suspect:
                record.suspect = True
                record.changed()
                self._changed(now, membership=True)
        # With two nodes one silent one is half of them: an ordinary death.
        limit_s = MASS_GRACE_S if len(silent) > MASS_SHARE * len(self.nodes) else config.NODE_DEAD_S
        limit_s = max(limit_s, config.NODE_DEAD_S)
        return [
            NodeGone(record.info.node, f"it missed its heartbeats for {now - record.heard_at:.0f} s")
            for record in silent
            if now - record.heard_at >= limit_s
        ]

    def broadcast(self, now: float) -> None:
        """Send the view if one is due: to those who have one what has changed since, to the others all of it."""
        if self._view_due is None or now < self._view_due:
            return
        self._view_due, self._viewed_at = None, now
        self._look()
        changed = [record.news() for node in self._unsaid if (record := self.nodes.get(node)) is not None]
        self._unsaid.clear()
        new = [node for node, record in self.nodes.items() if not record.told]
        self._view_pause_s = (len(changed) * (len(self.nodes) - len(new)) + len(self.nodes) * len(new)) / TOLD_PER_S
        if not changed and not new:
            return
        # One message for all who get the same, one after the other: it is encoded once.
        news = [each for each in changed if isinstance(each, NodeNews)]
        others = [each for each in changed if isinstance(each, NodeInfo)]
        changes = ClusterView(others, self._serial + 1, self._serial, news)
        for node, record in self.nodes.items():
            if record.told:
                self.send(node, changes)
        if new:
            whole = ClusterView(self.views(), self._serial + 1)
            for node in new:
                self.send(node, whole)
                self.nodes[node].told = True
        self._serial += 1

    def next_deadline(self) -> float | None:
        watching = self._last_tick + config.HEARTBEAT_S if any(not r.info.is_head for r in self.nodes.values()) else None
        return min((d for d in (watching, self._view_due) if d is not None), default=None)

    def restore(self, infos: list[NodeInfo], now: float) -> None:
        """Nodes that were known before. Each has one full lease to be heard of, and gets no work until then."""
        self._last_event = self._last_tick = now
        for info in infos:
            was = msgspec.structs.replace(info, is_head=info.node == self.head.node)
            kept = self.nodes if info.alive else self.dead
            kept[info.node] = NodeRecord(was, now, restored=info.alive, moved=self._moved if info.alive else None)

    # -- what others ask

    def views(self) -> list[NodeInfo]:
        return [record.view() for record in self.nodes.values()]

    def open_views(self) -> list[NodeInfo]:
        """Without those that refused a placement since they last reported."""
        return [record.view() for record in self.nodes.values() if not record.full]

    @property
    def roster(self) -> Roster:
        """The nodes as work may be placed on them now: those that refused a placement since they last reported count as unwell."""
        self._look()
        return self._roster

    def _look(self) -> None:
        """Take over what has changed."""
        for node in self._moved:
            record = self.nodes.get(node)
            if record is None:
                self._roster.pop(node, None)
                self._unsaid.pop(node, None)
                continue
            view = record.view()
            self._roster[node] = msgspec.structs.replace(view, suspect=True) if record.full else view
            self._unsaid[node] = None
        self._moved.clear()

    def room_changed(self, record: NodeRecord, now: float) -> None:
        record.moved()
        self._changed(now, membership=False)

    def has_room(self, shape: Shape) -> bool:
        return any(record.has_room(shape) for record in self.nodes.values())

    def send(self, node: NodeId, message: Message) -> None:
        self.out.append(Send(Address(node, node), message))

    def tell_all(self, message: Message) -> None:
        for node in self.nodes:
            self.send(node, message)

    def _tell_dead(self, record: NodeRecord) -> None:
        # Its lease ran out while it was away. It ends what it runs and joins again under a new id.
        self.send(record.info.node, NodeDied(record.info.node, record.cause or "it was declared dead before the head restarted"))

    def _changed(self, now: float, *, membership: bool) -> None:
        pause_s = max(self._view_pause_s, JOIN_PAUSE_S if membership else config.HEARTBEAT_S)
        due = max(now, self._viewed_at + pause_s)
        self._view_due = due if self._view_due is None else min(self._view_due, due)

    def check(self) -> None:
        assert not self.nodes.keys() & self.dead.keys(), "a node is both alive and dead"
        for node, record in self.nodes.items():
            assert record.alive
            assert record.info.node == node
            assert not (record.suspect and record.info.is_head), "the head suspects its own node"
            record.check()
        assert all(not record.alive and not record.holds for record in self.dead.values())
