"""The page without Jupyter: the verbs of this package behind a door of their own (door.py).

Every method of every path wants a cookie or the key, and a Host that is this server. What changes something also wants the header
X-NBRAY and a body of JSON, which no form of another site can send; a socket wants our own Origin. It listens where it is told to,
which is 127.0.0.1 unless somebody asks for more in so many words.
"""

from __future__ import annotations

import contextlib
import html
import socket
from collections.abc import Iterable
from typing import Any

from tornado import httpserver, netutil, web

from nbray.dashboard import verbs
from nbray.dashboard.door import Door, bracketed
from nbray.driver.dashboard import MORE_PORTS, PORT
from nbray.wire.addresses import ANYWHERE, facing

HEADER_BYTES = 16 * 1024
#: A visitor that says nothing for so long, or takes longer for its headers, is let go.
IDLE_S = 60.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": verbs.POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "nbray",
}
SAFE = ("GET", "HEAD")
ENTER = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="/nbray/static/icon.svg"><meta http-equiv="refresh" content="0; url=/nbray"><title>nbray</title>
<p>You are in: <a href="/nbray">the page</a>.</p></html>
"""
STAY_OUT = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>nbray</title>
<h1>This page needs a key</h1><p>%s</p></html>
"""
HOW = "The address that lets a browser in is good once. `nbray dashboard` on the machine of the cluster gives another."


class Guarded(web.RequestHandler):
    """Before every verb: is this our name, who asks, and could another site have made them ask?"""

    door: Door

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        request = self.request
        host, origin = request.headers.get("Host"), request.headers.get("Origin")
        if not self.door.is_ours(host):
            raise web.HTTPError(403, "this server is not called that")
        if not self.current_user:
            raise web.HTTPError(403, HOW)
        if origin is not None and not self.door.is_from_us(origin, host):
            raise web.HTTPError(403, "another site asks")
        if request.method not in SAFE and request.headers.get("X-NBRAY") is None:
            raise web.HTTPError(403, "the header X-NBRAY is missing")
        if request.body and request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise web.HTTPError(415, "a body is JSON here")

    def get_current_user(self) -> str | None:
        # get_cookie would set nothing, and a cookie header of rubbish gives None.
        knows = self.door.knows(self.get_cookie(self.door.cookie), self.request.headers.get("Authorization"))
        return "visitor" if knows else None


class Watching(verbs.WatchVerbs):
    def prepare(self) -> None:
        super().prepare()
        if self.request.headers.get("Origin") is None:
            raise web.HTTPError(403, "a socket is opened by our page, which says so")

    def check_origin(self, origin: str) -> bool:
        return bool(self.door.is_from_us(origin, self.request.headers.get("Host")))  # type: ignore[attr-defined]

    @property
    def ping_interval(self) -> float:
        return 30.0

    def open(self, *args: str, **kwargs: str) -> None:
        super().open(*args, **kwargs)
        self.begin()


class Page(verbs.PageVerbs):
    """The page; and, for who comes with a token, the cookie."""

    door: Door

    def prepare(self) -> None:
        token = self.get_query_argument("token", None)
        if token is None or not self.door.is_ours(self.request.headers.get("Host")) or self.request.method != "GET":
            super().prepare()
            return
        cookie = self.door.admit(token)
        if cookie is None and not self.current_user:
            raise web.HTTPError(403, HOW)
        if cookie is not None:
            self.set_cookie(self.door.cookie, cookie, httponly=True, samesite="Strict", path="/")
        # Not a redirect: a browser that came from another site would not send the new cookie along.
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(ENTER)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        said = error.log_message % error.args if isinstance(error, web.HTTPError) and error.log_message else self._reason
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(STAY_OUT % html.escape(said))


class Home(verbs.Verb):
    def get(self) -> None:
        self.redirect("/nbray")


class Here(verbs.Verb):
    """That this is a dashboard, for who looks whether one runs."""

    def get(self) -> None:
        self.finish({"nbray": True})


class Tokens(verbs.Verb):
    """One more token for one visit; only who has the key gets one, not every visitor."""

    door: Door

    def post(self) -> None:
        if not self.door.knows(None, self.request.headers.get("Authorization")):
            raise web.HTTPError(403, HOW)
        self.finish({"token": self.door.token()})


class Nothing(verbs.Verb):
    def prepare(self) -> None:
        super().prepare()
        raise web.HTTPError(404, "there is nothing here")


def application(shared: verbs.Shared, door: Door) -> web.Application:
    own: dict[type[web.RequestHandler], type[web.RequestHandler]] = {verbs.PageVerbs: Page, verbs.WatchVerbs: Watching}
    known = [(f"/{path}", own.get(verb, verb)) for path, verb in verbs.ROUTES]
    known += [("/", Home), ("/nbray/", Home), ("/nbray/api/here", Here), ("/nbray/api/tokens", Tokens), (".*", Nothing)]
    routes = [(path, type(verb.__name__, (verb, Guarded), {"door": door}), {"shared": shared}) for path, verb in known]
    return web.Application(routes, compress_response=False, log_function=lambda _: None)


def listen(host: str, port: int | None) -> tuple[list[socket.socket], int]:
    """Sockets on `port`, or on the first that is free from PORT on. Raises OSError naming the port."""
    where = None if host in ANYWHERE else host.strip("[]")
    last: OSError | None = None
    for tried in [port] if port is not None else [*range(PORT, PORT + MORE_PORTS), 0]:
        try:
            sockets = netutil.bind_sockets(tried, where)
        except OSError as error:
            last = error
            continue
        return sockets, int(sockets[0].getsockname()[1])
    raise OSError(
        f"the dashboard cannot listen at {bracketed(host)}:{port}: {last.strerror if last else 'no port'}; give another port"
    )


def called(host: str) -> list[str]:
    """What visitors may call a server that listens at `host`, besides what every machine calls itself."""
    if host not in ANYWHERE:
        return [host]
    names = {facing(), socket.gethostname()}
    with contextlib.suppress(OSError):
        names.add(socket.getfqdn())
    return sorted(names)


def serve(shared: verbs.Shared, door: Door, sockets: Iterable[socket.socket]) -> httpserver.HTTPServer:
    """On the running loop."""
    server = httpserver.HTTPServer(
        application(shared, door),
        max_header_size=HEADER_BYTES,
        max_body_size=verbs.BODY_BYTES * 2,
        body_timeout=IDLE_S,
        idle_connection_timeout=IDLE_S,
    )
    server.add_sockets(list(sockets))
    return server
