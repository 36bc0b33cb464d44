"""Which of this machine's addresses others see."""

from __future__ import annotations

import ipaddress
import socket

#: Nothing is sent there: connecting a datagram socket only asks which of our addresses faces the network.
SOMEWHERE = "192.0.2.1"


def facing(address: str = SOMEWHERE) -> str:
    """The address that faces `address`; 127.0.0.1 where there is no network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address.partition(":")[0], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


#: What means every network of this machine, where one listens.
ANYWHERE = ("0.0.0.0", "::", "*", "")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
