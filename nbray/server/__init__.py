"""The jupyter_server extension: the page, its REST and its socket under /nbray, and the panel's. Enabled by installing nbray."""

from __future__ import annotations

from typing import Any

from nbray.dashboard.clusters import Clusters
from nbray.dashboard.verbs import Shared
from nbray.server.handlers import routes

__all__ = ["_jupyter_server_extension_points", "_load_jupyter_server_extension", "_unload_jupyter_server_extension"]

_SETTING = "nbray_clusters"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "nbray.server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    web = app.web_app
    web.settings[_SETTING] = Shared(Clusters())
    web.add_handlers(".*$", routes(web.settings["base_url"], web.settings[_SETTING]))
    app.log.info("nbray: clusters of this machine are at %snbray", web.settings["base_url"])


async def _unload_jupyter_server_extension(app: Any) -> None:
    """What was started from the panel goes on; only our way of looking at it is closed."""
    shared = app.web_app.settings.pop(_SETTING, None)
    if shared is not None:
        shared.close()
