"""A node's lease on being alive, as the node itself counts it. Pure.

The head renews it by taking a heartbeat, and gives the node's work to others NODE_DEAD_S after the last one came. The node
counts from when it *sent* that heartbeat, so its own clock runs out first:

    renewed --CLOSED_SHARE of NODE_DEAD_S--> closed (begins nothing new) --ENDED_SHARE--> ended (what others may begin again)
       ^---------------------------- a later heartbeat is taken ------------------------------'

It cannot tell a broken network from a head that is being started again. So it ends only what could then run twice, tasks of
other nodes' processes that may be tried again and actors that may be restarted, and goes on with the rest. A head that had
declared it dead says so when it hears from it (NodeDied), and the node begins a new life.
"""

from __future__ import annotations

from nbray import config

CLOSED_SHARE, ENDED_SHARE = 2 / 3, 0.9


class Fence:
    """`lasting`: the head's own node, which dies with the head and not before."""

    def __init__(self, *, lasting: bool) -> None:
        self._lasting = lasting
        self._renewed_at: float | None = None  #: None: not begun
        self._closed = self._ended = False

    def renew(self, sent_at: float) -> None:
        """The head has taken a heartbeat of then."""
        if self._renewed_at is None or sent_at > self._renewed_at:
            self._renewed_at = sent_at
            self._closed = self._ended = False

    def is_closed(self, now: float) -> bool:
        if not self._lasting and self._renewed_at is not None:
            self._closed = now >= self._renewed_at + CLOSED_SHARE * config.NODE_DEAD_S
        return self._closed

    def is_to_end(self, now: float) -> bool:
        """Whether work has to end now: true once."""
        if self._lasting or self._ended or self._renewed_at is None or now < self._renewed_at + ENDED_SHARE * config.NODE_DEAD_S:
            return False
        self._ended = True
        return True

    def why(self, now: float) -> str:
        assert self._renewed_at is not None
        return f"its node has not heard from the head for {now - self._renewed_at:.0f} s"

    def deadline(self) -> float | None:
        """When something changes without an event."""
        if self._lasting or self._ended or self._renewed_at is None:
            return None
        share = ENDED_SHARE if self._closed else CLOSED_SHARE
        return self._renewed_at + share * config.NODE_DEAD_S
