"""REST under /nbray. Every verb wants Jupyter's own authentication; Jupyter checks Host, Origin and the XSRF cookie.

GET    /nbray/api/clusters        {"clusters": [...]}
POST   /nbray/api/clusters        {"num_cpus": 4} -> the new cluster
GET    /nbray/api/clusters/ID     nodes, workers, tasks, actors (cards/cluster.py)
PATCH  /nbray/api/clusters/ID     {"node": "b71e", "num_cpus": 4}: give a node so many CPUs
DELETE /nbray/api/clusters/ID     stop what `nbray start` or POST began
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Callable
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from nbray.server.clusters import Clusters, NoCluster

BODY_BYTES = 10_000
MOST_CPUS = 100_000


class _Handler(APIHandler):
    def initialize(self, clusters: Clusters, thread: concurrent.futures.Executor) -> None:
        self.clusters, self.thread = clusters, thread

    async def _answer(self, work: Callable[[], Any], status: int = 200, content_type: str = "") -> None:
        """Run `work` beside Jupyter's loop and send what it returns, as JSON unless it is text of `content_type`; its errors in
        words."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self.thread, work)
        except NoCluster as error:
            raise web.HTTPError(404, str(error), reason="No such cluster") from None
        except PermissionError as error:
            raise web.HTTPError(409, str(error), reason="Not ours to stop") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise web.HTTPError(503, str(error), reason="The cluster does not answer") from None
        self.set_status(status)
        if result is None:
            self.finish()
        elif content_type:
            self.finish(result, set_content_type=content_type)
        else:
            self.finish(json.dumps(result))

    def _body(self, *names: str) -> dict[str, Any]:
        if len(self.request.body) > BODY_BYTES:
            raise web.HTTPError(413, f"more than {BODY_BYTES:,} bytes")
        try:
            asked = json.loads(self.request.body or b"{}")
        except ValueError:
            raise web.HTTPError(400, "the body is not JSON") from None
        if not isinstance(asked, dict) or asked.keys() - set(names):
            raise web.HTTPError(400, f"the body is an object that may have {' and '.join(names)}")
        return asked

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        said = error.log_message if isinstance(error, web.HTTPError) and error.log_message else self._reason
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"message": said}))


class ClustersHandler(_Handler):
    @web.authenticated
    async def get(self) -> None:
        await self._answer(lambda: {"clusters": self.clusters.listing()})

    @web.authenticated
    async def post(self) -> None:
        asked = self._body("num_cpus")
        cpus = asked.get("num_cpus")
        if cpus is not None and (isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0 < cpus <= MOST_CPUS):
            raise web.HTTPError(400, f"num_cpus is a number above 0 and at most {MOST_CPUS:,}, not {cpus!r:.50}")
        await self._answer(lambda: self.clusters.start(cpus), 201)


class MetricsHandler(_Handler):
    @web.authenticated
    async def get(self) -> None:
        cluster = self.get_query_argument("cluster", None)
        await self._answer(lambda: self.clusters.metrics(cluster), content_type="text/plain; version=0.0.4; charset=utf-8")


class ClusterHandler(_Handler):
    @web.authenticated
    async def get(self, cluster: str) -> None:
        await self._answer(lambda: self.clusters.view(cluster))

    @web.authenticated
    async def patch(self, cluster: str) -> None:
        asked = self._body("node", "num_cpus")
        node, cpus = asked.get("node"), asked.get("num_cpus")
        if not isinstance(node, str) or isinstance(cpus, bool) or not isinstance(cpus, int) or not 1 <= cpus <= MOST_CPUS:
            raise web.HTTPError(400, f"node is a node's id, and num_cpus a whole number from 1 to {MOST_CPUS:,}")
        await self._answer(lambda: self.clusters.scale(cluster, node, cpus))

    @web.authenticated
    async def delete(self, cluster: str) -> None:
        await self._answer(lambda: self.clusters.stop(cluster), 204)


def routes(base_url: str, clusters: Clusters) -> list[tuple[str, type[_Handler], dict[str, Any]]]:
    """For the server's application. One thread serves all: a cluster that does not answer delays the panel, never Jupyter."""
    thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="nbray-server")
    shared = {"clusters": clusters, "thread": thread}
    api = url_path_join(base_url, "nbray", "api", "clusters")
    metrics = (url_path_join(base_url, "nbray", "metrics"), MetricsHandler, shared)
    return [metrics, (api, ClustersHandler, shared), (url_path_join(api, "([0-9a-f]{16})"), ClusterHandler, shared)]
