"""The jupyter_server extension: clusters of this machine over REST, for the panel of `extension/`. Enabled by installing nbray."""

from __future__ import annotations

from typing import Any

from nbray.server.clusters import Clusters
from nbray.server.handlers import routes

__all__ = ["_jupyter_server_extension_points", "_load_jupyter_server_extension", "_unload_jupyter_server_extension"]

_SETTING = "nbray_clusters"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "nbray.server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    web = app.web_app
    web.settings[_SETTING] = Clusters()
    web.add_handlers(".*$", routes(web.settings["base_url"], web.settings[_SETTING]))
    app.log.info("nbray: clusters of this machine are at %snbray", web.settings["base_url"])


async def _unload_jupyter_server_extension(app: Any) -> None:
    """What was started from the panel goes on; only our way of looking at it is closed."""
    clusters = app.web_app.settings.pop(_SETTING, None)
    if clusters is not None:
        clusters.close()
