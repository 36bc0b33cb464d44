"""The verbs of nbray/dashboard under Jupyter's rules: its authentication, and its checks of Host, Origin and the XSRF cookie."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado import web

from nbray.dashboard import verbs


class PageHandler(verbs.PageVerbs, JupyterHandler):
    async def prepare(self) -> None:  # type: ignore[override]
        await super().prepare()
        if not self._finished:
            _ = self.xsrf_token  # sets the cookie that the page sends back with what changes something


class WatchHandler(WebSocketMixin, verbs.WatchVerbs, JupyterHandler):
    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        super().open(*args, **kwargs)
        self.begin()


def _handler(verb: type[web.RequestHandler]) -> type[web.RequestHandler]:
    """The handler of a verb here: a page's file may redirect to the login, what is asked by code is refused in words."""
    special: dict[type[web.RequestHandler], type[web.RequestHandler]] = {
        verbs.PageVerbs: PageHandler,
        verbs.WatchVerbs: WatchHandler,
    }
    if verb in special:
        return special[verb]
    base = JupyterHandler if verb is verbs.FileVerbs else APIHandler
    return type(verb.__name__.replace("Verbs", "Handler"), (verb, base), {})


def routes(base_url: str, shared: verbs.Shared) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """For the server's application."""
    return [(url_path_join(base_url, path), _handler(verb), {"shared": shared}) for path, verb in verbs.ROUTES]
