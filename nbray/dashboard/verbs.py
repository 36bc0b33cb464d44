"""REST under /nbray, and the socket: what each verb does. Whose server it is, Jupyter's or ours, says who may ask.

GET    /nbray                                  the page
GET    /nbray/static/FILE                      its code and style
GET    /nbray/api/clusters                     {"clusters": [...]}
POST   /nbray/api/clusters                     {"num_cpus": 4} -> the new cluster
PATCH  /nbray/api/clusters/ID                  {"node": NODE, "num_cpus": 8} -> {"cpus", "was", "node"}
DELETE /nbray/api/clusters/ID                  stop what `nbray start` or POST began
POST   /nbray/api/clusters/ID/nodes            {"num_cpus": 2} -> one more node of it on this machine
DELETE /nbray/api/clusters/ID/nodes/NODE       end such a node
GET    /nbray/api/clusters/ID/jobs/JOB/spans?edition=E&first=N   of its timeline, from N on (past.py:Drawing.part)
GET    /nbray/api/clusters/ID/jobs/JOB/trace   all that ended, in Chrome's trace format
POST   /nbray/api/clusters/ID/jobs/JOB/lineage {"cell": TAG, "opened": [KEY], "shut": [KEY]} -> the graph
GET    /nbray/api/clusters/ID/jobs/JOB/plan?cell=TAG   what it, or a cell of it, would take elsewhere
GET    /nbray/api/snapshot?cluster=ID&views=A,B  what the socket sends
WS     /nbray/api/watch                        in {"cluster": ID, "views": [A, B]}; out snapshots, while it is open
GET    /nbray/metrics?cluster=ID               figures for Prometheus
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Callable, Iterable
from typing import Any

from tornado import iostream, web, websocket

from nbray.cards.lineage import View
from nbray.dashboard import assets, past
from nbray.dashboard.clusters import MOST_VIEWS, OVERVIEW, Clusters, NoCluster
from nbray.dashboard.watching import Full, Watch
from nbray.driver.scaling import MOST_CPUS, checked_cpus
from nbray.util.state import tables

BODY_BYTES = 10_000
CHOICE_BYTES = 2_000  #: of what a page says over the socket
THREADS = 6
CLUSTER = "([0-9a-f]{16})"
NODE = "([0-9a-f]{8,64})"
JOB = "([0-9a-f]{16})"
TAG_CHARACTERS = 400  #: of a cell's tag, in whatever form
MOST_KEYS = 100  #: of a graph's nodes
#: Of our page. Jupyter's own policy stays as it is for what Jupyter serves.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
POLICY_VIOLATION, TRY_LATER = 1008, 1013


class Shared:
    """What all handlers of one server use. A cluster that does not answer holds a thread, never the server's loop."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="nbray-page")
        self.watch = Watch(lambda cluster, views: self.run(lambda: clusters.snapshot(cluster, views)))

    async def run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self.watch.close()
        self.clusters.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Verb(web.RequestHandler):
    """How an answer and an error look."""

    def initialize(self, shared: Shared) -> None:
        self.shared, self.clusters = shared, shared.clusters

    async def result(self, work: Callable[[], Any]) -> Any:
        """What `work` returns beside the loop; its errors in words."""
        try:
            return await self.shared.run(work)
        except NoCluster as error:
            raise web.HTTPError(404, str(error), reason="No such cluster") from None
        except PermissionError as error:
            raise web.HTTPError(409, str(error), reason="Not ours to change") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise web.HTTPError(503, str(error), reason="The cluster does not answer") from None

    async def answer(self, work: Callable[[], Any], status: int = 200, content_type: str = "application/json") -> None:
        """Send what `work` returns, as JSON unless it is text."""
        result = await self.result(work)
        self.set_status(status)
        if result is None:
            self.finish()
            return
        # Jupyter's APIHandler.finish sets a content type of its own, so this comes last and bypasses it.
        self.set_header("Content-Type", content_type)
        web.RequestHandler.finish(self, result if isinstance(result, str) else json.dumps(result))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        # tornado doubles the % of a text without arguments.
        said = error.log_message % error.args if isinstance(error, web.HTTPError) and error.log_message else self._reason
        self.set_header("Content-Type", "application/json")
        web.RequestHandler.finish(self, json.dumps({"message": said}))

    def body(self, *fields: str) -> dict[str, Any]:
        """The request's JSON: an object that may have `fields`."""
        if len(self.request.body) > BODY_BYTES:
            raise web.HTTPError(413, f"more than {BODY_BYTES:,} bytes")
        try:
            asked = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            raise web.HTTPError(400, "the body is not JSON") from None
        if not isinstance(asked, dict) or asked.keys() - set(fields):
            raise web.HTTPError(400, f"the body is an object that may have {', '.join(fields)}")
        return asked

    def cpus(self) -> float | None:
        try:
            return checked_cpus(self.body("num_cpus").get("num_cpus"))
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from None


class ClustersVerbs(Verb):
    @web.authenticated
    async def get(self) -> None:
        await self.answer(lambda: {"clusters": self.clusters.listing()})

    @web.authenticated
    async def post(self) -> None:
        cpus = self.cpus()
        await self.answer(lambda: self.clusters.start(cpus), 201)


class ClusterVerbs(Verb):
    @web.authenticated
    async def patch(self, cluster: str) -> None:
        asked = self.body("node", "num_cpus")
        node, cpus = asked.get("node"), asked.get("num_cpus")
        if not isinstance(node, str) or isinstance(cpus, bool) or not isinstance(cpus, int) or not 1 <= cpus <= MOST_CPUS:
            raise web.HTTPError(400, f"node is a node's id, and num_cpus a whole number from 1 to {MOST_CPUS:,}")
        await self.answer(lambda: self.clusters.scale(cluster, node, cpus))

    @web.authenticated
    async def delete(self, cluster: str) -> None:
        await self.answer(lambda: self.clusters.stop(cluster), 204)


class NodesVerbs(Verb):
    @web.authenticated
    async def post(self, cluster: str) -> None:
        cpus = self.cpus()
        await self.answer(lambda: self.clusters.add_node(cluster, cpus), 201)


class NodeVerbs(Verb):
    @web.authenticated
    async def delete(self, cluster: str, node: str) -> None:
        await self.answer(lambda: self.clusters.remove_node(cluster, node), 204)


class SpansVerbs(Verb):
    @web.authenticated
    async def get(self, cluster: str, job: str) -> None:
        edition, first = self.number("edition"), self.number("first")
        await self.answer(lambda: self.clusters.spans(cluster, bytes.fromhex(job), edition, first))

    def number(self, name: str) -> int:
        given = self.get_query_argument(name, "0")
        if not given.isdecimal() or len(given) > 12:
            raise web.HTTPError(400, f"{name} is a whole number")
        return int(given)


class TraceVerbs(Verb):
    @web.authenticated
    async def get(self, cluster: str, job: str) -> None:
        """In pieces: all of it would be tens of MB at once."""
        pieces = await self.result(lambda: self.clusters.events(cluster, bytes.fromhex(job)))
        self.set_header("Content-Type", "application/json")
        try:
            while (piece := await self.shared.run(lambda: next(pieces, None))) is not None:
                self.write(piece)
                await self.flush()
        except iostream.StreamClosedError:  # nobody waits for it any more
            return
        web.RequestHandler.finish(self)


class LineageVerbs(Verb):
    @web.authenticated
    async def post(self, cluster: str, job: str) -> None:
        asked = self.body("cell", "opened", "shut")
        cell, opened, shut = asked.get("cell", ""), asked.get("opened", []), asked.get("shut", [])
        if not isinstance(cell, str) or not _are_keys(opened) or not _are_keys(shut):
            raise web.HTTPError(400, f"cell is a text, and opened and shut are lists of up to {MOST_KEYS} texts")
        view = View(cell, frozenset(opened[-past.MOST_OPEN :]), frozenset(shut))
        await self.answer(lambda: self.clusters.lineage(cluster, bytes.fromhex(job), view))


def _are_keys(given: object) -> bool:
    return isinstance(given, list) and len(given) <= MOST_KEYS and all(isinstance(key, str) for key in given)


class PlanVerbs(Verb):
    @web.authenticated
    async def get(self, cluster: str, job: str) -> None:
        cell = self.get_query_argument("cell", "")
        if len(cell) > TAG_CHARACTERS:
            raise web.HTTPError(400, "a cell's tag is not as long as that")
        await self.answer(lambda: self.clusters.plan(cluster, bytes.fromhex(job), cell))


class SnapshotVerbs(Verb):
    @web.authenticated
    async def get(self) -> None:
        cluster = self.get_query_argument("cluster", "")
        try:
            views = checked_views(self.get_query_argument("views", "overview").split(","))
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from None
        await self.answer(lambda: self.clusters.snapshot(cluster, views))


class MetricsVerbs(Verb):
    @web.authenticated
    async def get(self) -> None:
        cluster = self.get_query_argument("cluster", None)
        await self.answer(lambda: self.clusters.metrics(cluster), content_type=PLAIN)


class WatchVerbs(websocket.WebSocketHandler):
    """A socket. It says what it wants to see; it is sent that for as long as it is open."""

    def initialize(self, shared: Shared) -> None:
        self.watch = shared.watch
        self._sending: asyncio.Future[None] | None = None

    @property
    def max_message_size(self) -> int:
        return CHOICE_BYTES

    def begin(self) -> None:
        try:
            self.watch.join(self)
        except Full as error:
            self.close(TRY_LATER, str(error))

    def on_message(self, message: str | bytes) -> None:
        try:
            cluster, views = choice(message)
        except ValueError as error:
            self.close(POLICY_VIOLATION, str(error)[:100])
            return
        self.watch.choose(self, cluster, views)

    def on_close(self) -> None:
        self.watch.leave(self)

    def offer(self, message: str) -> None:
        if self._sending is not None and not self._sending.done():
            return
        try:
            self._sending = asyncio.ensure_future(self.write_message(message))
        except websocket.WebSocketClosedError:
            self.watch.leave(self)
            return
        self._sending.add_done_callback(lambda sent: sent.cancelled() or sent.exception())


def choice(message: str | bytes) -> tuple[str, tuple[str, ...]]:
    """What a page wants to see: (cluster, views). Raises ValueError."""
    try:
        asked = json.loads(message)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(asked, dict) or asked.keys() - {"cluster", "views"}:
        raise ValueError('say {"cluster": ID, "views": [...]}')
    cluster, views = asked.get("cluster") or "", asked.get("views") or []
    if not isinstance(cluster, str) or len(cluster) > 16 or not isinstance(views, list):
        raise ValueError('say {"cluster": ID, "views": [...]}')
    return cluster, checked_views(views)


def checked_views(views: Iterable[object]) -> tuple[str, ...]:
    """Raises ValueError."""
    good = tuple(dict.fromkeys(view for view in views if isinstance(view, str) and _is_view(view)))
    bad = [view for view in views if view not in good]
    if bad or len(good) > MOST_VIEWS:
        raise ValueError(f"at most {MOST_VIEWS} views of: {OVERVIEW}, {', '.join(tables.TABLES)}, log/ID, past/JOB")
    return good


def _is_view(view: str) -> bool:
    return view == OVERVIEW or past.known(view) or tables.known(view)


class PageVerbs(Verb):
    @web.authenticated
    async def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")
        web.RequestHandler.finish(self, assets.page())


class FileVerbs(Verb):
    @web.authenticated
    async def get(self, name: str) -> None:
        found = assets.file(name)
        if found is None:
            raise web.HTTPError(404, "there is no such file")
        content_type, content = found
        self.set_header("Content-Type", content_type)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        web.RequestHandler.finish(self, content)


#: Below the server's base: the path, and what answers there.
ROUTES: tuple[tuple[str, type[web.RequestHandler]], ...] = (
    ("nbray", PageVerbs),
    ("nbray/static/([a-z.-]{1,40})", FileVerbs),
    ("nbray/metrics", MetricsVerbs),
    ("nbray/api/snapshot", SnapshotVerbs),
    ("nbray/api/watch", WatchVerbs),
    ("nbray/api/clusters", ClustersVerbs),
    (f"nbray/api/clusters/{CLUSTER}", ClusterVerbs),
    (f"nbray/api/clusters/{CLUSTER}/nodes", NodesVerbs),
    (f"nbray/api/clusters/{CLUSTER}/nodes/{NODE}", NodeVerbs),
    (f"nbray/api/clusters/{CLUSTER}/jobs/{JOB}/spans", SpansVerbs),
    (f"nbray/api/clusters/{CLUSTER}/jobs/{JOB}/trace", TraceVerbs),
    (f"nbray/api/clusters/{CLUSTER}/jobs/{JOB}/lineage", LineageVerbs),
    (f"nbray/api/clusters/{CLUSTER}/jobs/{JOB}/plan", PlanVerbs),
)
