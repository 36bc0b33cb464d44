"""The server extension in a real Jupyter server: who may ask, what is found, started and stopped; the bundle."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

import nbray

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-this-test"
BOUND_S = 60.0
NOBODY = "0" * 16
EVERY_VERB = [
    ("GET", "/nbray/metrics"),
    ("GET", "clusters"),
    ("POST", "clusters"),
    ("PATCH", f"clusters/{NOBODY}"),
    ("DELETE", f"clusters/{NOBODY}"),
    ("POST", f"clusters/{NOBODY}/nodes"),
    ("DELETE", f"clusters/{NOBODY}/nodes/{NOBODY}"),
    *(("GET", f"clusters/{NOBODY}/jobs/{NOBODY}/{what}") for what in ("spans", "trace", "plan")),
    ("POST", f"clusters/{NOBODY}/jobs/{NOBODY}/lineage"),
    ("GET", f"snapshot?cluster={NOBODY}"),
    ("GET", "watch"),
]


class Answer(NamedTuple):
    status: int
    body: Any


class Server(NamedTuple):
    port: int

    def ask(self, verb: str, path: str, body: Any = None, headers: dict[str, str] | None = None, token: str = TOKEN) -> Answer:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"token {token}"} if token else {}
        below = path if path.startswith("/") else f"/nbray/api/{path}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{below}", data, {**given, **(headers or {})}, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=BOUND_S) as reply:
                status, raw = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        try:
            return Answer(status, json.loads(raw) if raw else None)
        except ValueError:
            return Answer(status, raw)

    def see(self, cluster: str, view: str = "overview") -> Any:
        """One view of a cluster, as the page has it."""
        answer = self.ask("GET", f"snapshot?cluster={cluster}&views={view}")
        assert (answer.status, answer.body["problem"]) == (200, "")
        return answer.body["views"][view]

    def cookie(self) -> str:
        """What a browser has after it was let in by the token."""
        visitor = urllib.request.HTTPCookieProcessor()
        urllib.request.build_opener(visitor).open(f"http://127.0.0.1:{self.port}/nbray?token={TOKEN}", timeout=BOUND_S).close()
        return "; ".join(f"{each.name}={each.value}" for each in visitor.cookiejar)

    def upgrade(self, headers: dict[str, str]) -> int:
        """The status that a request for the socket gets."""
        asked = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "A" * 22 + "==",
        }
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)) as line:
            line.request("GET", "/nbray/api/watch", headers={**asked, **headers})
            with contextlib.closing(line.getresponse()) as reply:
                return reply.status

    def clusters(self) -> list[dict[str, Any]]:
        """What the server lists. The developer's own clusters may be among them."""
        return list(self.ask("GET", "clusters").body["clusters"])


class Gate:
    """An actor that others wait at."""

    def __init__(self) -> None:
        self.opened, self.someone = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.someone.set()
        await self.opened.wait()

    async def waited(self) -> None:
        await self.someone.wait()

    async def open(self) -> None:
        self.opened.set()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", "--allow-root", "--no-browser"]
    options += [
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={home}",
        "--ServerApp.jpserver_extensions=nbray.server=True",
    ]
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    log = home / "server.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *options],
            env={**os.environ, **own, "PYTHONPATH": path},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + BOUND_S
        while "is running at" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield Server(port)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize(("verb", "path"), EVERY_VERB)
def test_nobody_is_answered_without_the_token(server: Server, verb: str, path: str) -> None:
    body = {} if verb in ("POST", "PATCH") else None
    assert server.ask(verb, path, body, token="").status == 403
    assert server.ask(verb, path, body, token="wrong").status == 403


@pytest.mark.parametrize(("verb", "path"), EVERY_VERB)
def test_a_foreign_host_or_origin_is_refused(server: Server, verb: str, path: str) -> None:
    body = {} if verb in ("POST", "PATCH") else None
    assert server.ask(verb, path, body, {"Host": "evil.example"}).status == 403
    cross = server.ask(verb, path, body, {"Origin": "http://evil.example", "Authorization": ""}, token="")
    assert cross.status in (403, 404)


@pytest.mark.parametrize(
    "body", [b"nonsense", b"[]", {"num_cpus": -1}, {"num_cpus": "4"}, {"num_cpus": True}, {"other": 1}, b"x" * 20_000]
)
def test_a_bad_request_to_start_is_refused_in_words(server: Server, body: Any) -> None:
    answer = server.ask("POST", "clusters", body)
    assert answer.status in (400, 413)
    assert answer.body["message"]


def test_a_cluster_that_is_not_there_is_not_found(server: Server) -> None:
    cluster, nodes = f"clusters/{NOBODY}", f"clusters/{NOBODY}/nodes"
    for verb, path in (("DELETE", cluster), ("POST", nodes), ("DELETE", f"{nodes}/{NOBODY}")):
        answer = server.ask(verb, path, {} if verb == "POST" else None)
        assert (answer.status, "no cluster" in answer.body["message"]) == (404, True)
    assert "no cluster" in server.ask("GET", f"snapshot?cluster={NOBODY}").body["problem"]
    assert server.ask("DELETE", "clusters/..%2f..%2fetc").status == 404
    assert server.ask("GET", "/nbray/static/..%2fpage.html").status == 404
    assert server.ask("GET", f"snapshot?cluster={NOBODY}&views=secrets").status == 400


def test_a_scripts_cluster_is_seen_and_is_not_ours_to_stop(server: Server) -> None:
    nbray.init(num_cpus=3, resources={"<img src=x>": 1})
    try:
        (found,) = [each for each in server.clusters() if each["name"] == f"cluster of process {os.getpid()}"]
        assert found["mine"] is False
        (node,) = server.see(found["id"])["nodes"]
        cpu = next(each for each in node["meters"] if each["label"] == "CPU")
        assert cpu["text"].startswith("0 of 3 given out")
        assert "<img src=x>" in [each["label"] for each in node["meters"]]
        gate = nbray.remote(num_cpus=0)(Gate).remote()
        held = nbray.remote(lambda gate: nbray.get(gate.wait.remote())).options(name="<img src=x>").remote(gate)
        nbray.get(gate.waited.remote())
        view = server.see(found["id"])
        assert view["tasks"]["running"] >= 1
        assert "<img src=x>" in [worker["task"] for worker in view["nodes"][0]["workers"]]
        metrics = server.ask("GET", f"/nbray/metrics?cluster={found['id']}").body.decode()
        assert 'nbray_tasks{State="RUNNING' in metrics
        scaled = server.ask("PATCH", f"clusters/{found['id']}", {"node": node["id"], "num_cpus": 5})
        assert (scaled.status, scaled.body["cpus"]) == (200, 5), scaled.body
        assert nbray.cluster_resources()["CPU"] == 5
        for bad in ({"node": node["id"], "num_cpus": 0}, {"node": 3, "num_cpus": 2}, {"num_cpus": 2}):
            assert server.ask("PATCH", f"clusters/{found['id']}", bad).status == 400
        gate.open.remote()
        nbray.get(held)
        del gate, held
        refused = server.ask("DELETE", f"clusters/{found['id']}")
        assert refused.status == 409
        assert "%nbray stop" in refused.body["message"]
        assert nbray.get(nbray.remote(lambda: "alive").remote()) == "alive"
    finally:
        nbray.shutdown()
    assert found["id"] not in [each["id"] for each in server.clusters()]


def test_a_cluster_that_is_started_here_outlives_its_drivers_with_what_they_kept_and_init_finds_it(server: Server) -> None:
    made = server.ask("POST", "clusters", {"num_cpus": 2})
    assert made.status == 201, made.body
    try:
        assert made.body["mine"] is True
        context = nbray.init()
        assert context.address_info["address"] == made.body["address"]
        nbray.keep(nbray.remote(lambda: np.arange(200_000)).remote(), "numbers")
        nbray.keep({"a": 1}, "small")
        nbray.shutdown()
        nbray.init()
        assert nbray.kept() == ["numbers", "small"]
        assert nbray.get(nbray.kept("numbers")).sum() == sum(range(200_000))
        with pytest.raises(ValueError, match="kept already"):
            nbray.keep(2, "small")
        nbray.keep(2, "small", replace=True)
        assert nbray.get(nbray.kept("small")) == 2
        nbray.unkeep("small")
        with pytest.raises(KeyError, match="nothing is kept as 'small'; kept are: numbers"):
            nbray.kept("small")
        nbray.shutdown()
        assert nbray.init(num_cpus=1).address_info["address"] == "local", "who asks for amounts gets a cluster of their own"
        with pytest.raises(RuntimeError, match="ends with this process"):
            nbray.keep(1, "lost")
        nbray.shutdown()
    finally:
        stopped = server.ask("DELETE", f"clusters/{made.body['id']}")
    assert stopped.status == 204, stopped.body
    assert made.body["id"] not in [each["id"] for each in server.clusters()]


def test_the_built_front_end_is_in_step_with_its_sources() -> None:
    """`npm run build` in extension/ writes the bundle and this hash (extension/record.mjs)."""
    extension = ROOT / "extension"
    digest = hashlib.sha256()
    for root in ("src", "style", "schema", "../nbray/cards/static"):
        for path in sorted((extension / root).iterdir(), key=lambda each: each.name):
            digest.update(f"{root}/{path.name}\n".encode() + path.read_bytes())
    digest.update((extension / "package.json").read_bytes())
    recorded = (ROOT / "nbray/labextension/sources.sha256").read_text(encoding="ascii").strip()
    assert digest.hexdigest() == recorded, "run `npm install && npm run build` in extension/ and commit nbray/labextension"


def test_a_cluster_grows_by_a_node_and_shrinks_again_and_its_head_stays(server: Server) -> None:
    made = server.ask("POST", "clusters", {"num_cpus": 1}).body
    try:
        nodes = f"clusters/{made['id']}/nodes"
        added = server.ask("POST", nodes, {"num_cpus": 3})
        assert added.status == 201, added.body
        seen = server.see(made["id"])
        assert [(node["head"], node["cpus"]) for node in seen["nodes"]] == [(True, 1.0), (False, 3.0)]
        assert seen["removable"] == [added.body["id"]]
        head = seen["nodes"][0]["id"]
        refused = server.ask("DELETE", f"{nodes}/{head}")
        assert (refused.status, "it is the head" in refused.body["message"]) == (409, True)
        assert server.ask("DELETE", f"{nodes}/{added.body['id']}").status == 204
        assert server.ask("DELETE", f"{nodes}/{added.body['id']}").status == 404
        assert [node["state"] for node in server.see(made["id"])["nodes"]] == ["alive", "dead"]
        again = server.ask("POST", nodes, {"num_cpus": 1})
        assert again.status == 201, again.body
    finally:
        stopped = server.ask("DELETE", f"clusters/{made['id']}")
    assert stopped.status == 204, stopped.body


def test_a_notebooks_cluster_has_no_port_for_a_node_to_join_and_says_what_has(server: Server) -> None:
    nbray.init(num_cpus=1)
    try:
        (found,) = [each for each in server.clusters() if each["name"] == f"cluster of process {os.getpid()}"]
        refused = server.ask("POST", f"clusters/{found['id']}/nodes", {})
        assert refused.status == 409
        assert "nbray start --head" in refused.body["message"]
    finally:
        nbray.shutdown()


def test_the_socket_is_opened_to_who_is_authenticated_and_pushes_what_the_request_answers(server: Server) -> None:
    nbray.init(num_cpus=1)
    own = {"Origin": f"http://127.0.0.1:{server.port}"}

    async def story() -> None:
        line = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{server.port}/nbray/api/watch?token={TOKEN}", headers=own))
        first = json.loads(await line.read_message())
        (found,) = [each for each in first["clusters"] if each["name"] == f"cluster of process {os.getpid()}"]
        await line.write_message(json.dumps({"cluster": found["id"], "views": ["overview", "actors"]}))
        while not (told := json.loads(await line.read_message()))["views"]:
            continue
        asked = server.ask("GET", f"snapshot?cluster={found['id']}&views=overview,actors").body
        assert told.keys() == asked.keys()
        assert told["views"]["actors"] == asked["views"]["actors"]
        assert told["views"]["overview"].keys() == asked["views"]["overview"].keys()
        line.close()
        while await line.read_message() is not None:
            continue

    try:
        asyncio.run(asyncio.wait_for(story(), BOUND_S))
    finally:
        nbray.shutdown()
    for cookie, headers in (
        ("", own),
        ("x=y", own),
        (server.cookie(), {"Origin": "http://evil.example"}),
        (server.cookie(), {"Origin": "null"}),
        (server.cookie(), {**own, "Host": "evil.example"}),
    ):
        assert server.upgrade({**headers, "Cookie": cookie}) == 403, headers
    assert server.upgrade({**own, "Cookie": server.cookie()}) == 101


def test_the_page_is_jupyters_to_guard_and_its_own_policy_to_keep(server: Server) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/nbray", headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=BOUND_S) as reply:
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert any(line.startswith("_xsrf=") for line in reply.headers.get_all("Set-Cookie"))
        assert b"nbray/static/page.js" in reply.read()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/nbray", timeout=BOUND_S) as reply:
        assert "/login" in reply.url
