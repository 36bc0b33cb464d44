"""How a node reaches others: its settings, and the gateway made from them. Loaded only where there is a network to reach."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from nbray.ids import NodeId, ProcessId
from nbray.node.settings import NetworkSettings
from nbray.wire.auth import Credentials
from nbray.wire.gateway import Gateway, GatewayEvent, GatewayFailed, HomeMoved, PeerDown, Rejected
from nbray.wire.messages import NodeInfo


class Network:
    """The gateway of one node life. `failed` is called, on the gateway's thread, when this node reaches nobody any more;
    `moved` when another head answers where it had joined."""

    def __init__(
        self,
        settings: NetworkSettings,
        directory: str,
        node: NodeId,
        failed: Callable[[str], None],
        moved: Callable[[NodeId], None],
    ) -> None:
        """Listens if it is to. Raises OSError when the address cannot be had."""
        self._settings = settings
        self._failed, self._moved = failed, moved
        credentials = Credentials(settings.cluster, settings.secret, settings.server_public, settings.source, settings.role)
        self._gateway = Gateway(directory, node, bind=settings.bind, credentials=credentials, on_event=self._told)
        self._gateway.start()

    @property
    def port(self) -> int | None:
        """The port that it listens on; None if it does not listen."""
        return self._gateway.port

    def join(self) -> NodeId | None:
        """The head's node, once it has let us in; None if there is nobody to join. Raises AuthenticationError, ConnectionError."""
        return None if self._settings.join is None else self._gateway.dial(*self._settings.join)

    def learn(self, nodes: Sequence[NodeInfo]) -> None:
        self._gateway.learn(nodes)

    def forget(self, process: ProcessId) -> None:
        self._gateway.forget(process)

    def close(self) -> None:
        self._gateway.stop()

    def _told(self, event: GatewayEvent) -> None:
        match event:
            case GatewayFailed(reason):
                self._failed(f"the gateway failed: {reason}")
            case HomeMoved(node):
                self._moved(node)
            case Rejected(peer, reason):
                print(f"gateway: turned away {peer}: {reason}", file=sys.stderr, flush=True)
            case PeerDown(node, reason):
                # Whether the node is dead is the head's to say: partitions heal.
                print(f"gateway: lost node {node.hex()}: {reason}", file=sys.stderr, flush=True)
