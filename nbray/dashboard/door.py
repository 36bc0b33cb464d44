"""Who may come in to a page that no Jupyter guards: tokens for one use, the cookies they turn into, and the key of the machine.

    one-use token, in a URL  --first visit-->  a cookie, HttpOnly and SameSite=Strict, for as long as the server lives
    key, in a file 0600      --Authorization: Bearer-->  scripts, Prometheus, and new tokens

Compared in constant time. Names of this server are compared whole, with the port: a page elsewhere that has its own name point at
this machine is refused.
"""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from collections.abc import Iterable
from urllib.parse import urlsplit

#: Tokens that nobody has used yet, and visitors: the oldest make way.
MOST_TOKENS = 16
MOST_VISITORS = 64
HTTP_PORT = 80
LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Door:
    """What this server lets in. `names`: what it is called besides this machine's names for itself."""

    def __init__(self, port: int, names: Iterable[str] = ()) -> None:
        self.port = port
        self.key = secrets.token_urlsafe(32)
        self.cookie = f"nbray-{port}"  # cookies are shared between the ports of a host
        ending = "" if port == HTTP_PORT else f":{port}"  # browsers leave out the usual one
        self._hosts = [f"{bracketed(name)}{ending}" for name in (*LOCAL, *names)]
        self._tokens: deque[str] = deque(maxlen=MOST_TOKENS)
        self._visitors: deque[str] = deque(maxlen=MOST_VISITORS)

    def token(self) -> str:
        """A new token, for one visit."""
        self._tokens.append(secrets.token_urlsafe(32))
        return self._tokens[-1]

    def admit(self, token: str) -> str | None:
        """The cookie of a new visitor, or None: that token is not good, or not any more."""
        found = _among(token, self._tokens)
        if found is None:
            return None
        self._tokens.remove(found)
        self._visitors.append(secrets.token_urlsafe(32))
        return self._visitors[-1]

    def knows(self, cookie: str | None, authorization: str | None) -> bool:
        """Whether a request comes from a visitor, or from who has the key."""
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() == "bearer":
            return _among(key, [self.key]) is not None
        return bool(cookie) and _among(str(cookie), self._visitors) is not None

    def is_ours(self, host: str | None) -> bool:
        """Whether a Host header names this server."""
        return host is not None and host.lower() in self._hosts

    def is_from_us(self, origin: str | None, host: str | None) -> bool:
        """Whether an Origin header says that the request comes from this server's own page."""
        if origin is None or host is None:
            return False
        try:
            said = urlsplit(origin)
        except ValueError:
            return False
        return said.scheme in ("http", "https") and said.netloc.lower() == host.lower() and self.is_ours(host)


def _among(given: str, known: Iterable[str]) -> str | None:
    """All are compared, so that time tells nothing."""
    found = None
    for each in known:
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), each.encode()):
            found = each
    return found


def bracketed(host: str) -> str:
    """As URLs write it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host.lower()
