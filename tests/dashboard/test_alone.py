"""The page without Jupyter, in the process that `init(include_dashboard=True)` starts: who gets in, and that it ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

import nbray
from nbray import session
from nbray.dashboard import verbs
from nbray.driver import dashboard

BOUND_S = 30.0
EVIL = "<img src=x onerror=window.pwned=1>"
NOBODY = "0" * 16
PATHS = [
    "/nbray",
    "/nbray/",
    "/",
    "/nbray/static/page.js",
    "/nbray/metrics",
    "/nbray/api/here",
    "/nbray/api/tokens",
    "/nbray/api/snapshot",
    "/nbray/api/watch",
    "/nbray/api/clusters",
    f"/nbray/api/clusters/{NOBODY}",
    f"/nbray/api/clusters/{NOBODY}/nodes",
    f"/nbray/api/clusters/{NOBODY}/nodes/{NOBODY}",
    *(f"/nbray/api/clusters/{NOBODY}/jobs/{NOBODY}/{what}" for what in ("spans", "trace", "lineage", "plan")),
    "/anything",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
CHANGE = {"X-NBRAY": "1", "Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A page that runs, and a visitor's cookie for it."""

    def __init__(self, context: Any) -> None:
        self.directory = session.current().description()["directory"]
        place = dashboard.place(self.directory)
        assert place is not None
        self.place, self.port = place, place.port
        self.context = context
        entered = self.ask("GET", "/" + context.dashboard_url.partition("/")[2], cookie="")
        assert entered.status == 200, entered.body
        self.set_cookie = entered.headers["set-cookie"]
        self.cookie = self.set_cookie.partition(";")[0]

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, *, body: bytes | None = None, cookie: str | None = None
    ) -> Answer:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)
        brought = self.cookie if cookie is None else cookie
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            given = {"Host": f"127.0.0.1:{self.port}", **({"Cookie": brought} if brought else {}), **(headers or {})}
            for name, value in {**given, **({"Content-Length": str(len(body))} if body is not None else {})}.items():
                line.putheader(name, value)
            line.endheaders(body)
            reply = line.getresponse()
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            line.close()

    def see(self, view: str) -> Any:
        (cluster,) = self.ask("GET", "/nbray/api/clusters").json()["clusters"]
        told = self.ask("GET", f"/nbray/api/snapshot?cluster={cluster['id']}&views={view}").json()
        assert told["problem"] == ""
        return told["views"][view]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    context = nbray.init(num_cpus=2, include_dashboard=True, dashboard_port=0)
    yield Served(context)
    nbray.shutdown()


def test_without_being_asked_for_nothing_listens_and_there_is_no_url() -> None:
    context = nbray.init(num_cpus=1)
    try:
        assert (context.dashboard_url, context.address_info["webui_url"]) == ("", None)
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        assert [line for each in family for line in each.net_connections("tcp") if line.status == psutil.CONN_LISTEN] == []
        later = nbray.init(dashboard_port=0, ignore_reinit_error=True)
        assert later.dashboard_url.startswith("127.0.0.1:"), "who asks later gets one too"
        assert nbray.init(dashboard_port=0, ignore_reinit_error=True).address_info == later.address_info, "and not a second one"
    finally:
        nbray.shutdown()
    assert later.dashboard_url == ""


@pytest.mark.parametrize("path", PATHS)
def test_no_method_of_any_path_answers_a_stranger(served: Served, path: str) -> None:
    for method in METHODS:
        for cookie in ("", f"nbray-{served.port}=wrong", served.cookie + "x", '";;='):
            answer = served.ask(method, path, CHANGE, cookie=cookie)
            assert answer.status == (405 if method == "TRACE" else 403), (method, path, cookie)
            assert b"nbray_" not in answer.body


@pytest.mark.parametrize("path", PATHS)
def test_a_visitor_who_was_sent_by_another_site_or_name_is_refused(served: Served, path: str) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{served.port}"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{served.port}"},
    ):
        assert served.ask("GET", path, headers).status == 403, headers


def test_what_changes_something_wants_our_header_and_json(served: Served) -> None:
    path = f"/nbray/api/clusters/{NOBODY}/nodes"
    assert served.ask("POST", path, {"Content-Type": "application/json"}, body=b"{}").status == 403
    assert served.ask("DELETE", f"/nbray/api/clusters/{NOBODY}").status == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert served.ask("POST", path, {"X-NBRAY": "1", "Content-Type": kind}, body=b"{}").status == 415, kind
    assert served.ask("POST", path, CHANGE, body=b"{}").status == 404
    for body in (b"[]", b"{", b'{"num_cpus": 0}', b'{"num_cpus": true}', b'{"num_cpus": NaN}', b'{"other": 1}', b"[" * 9_000):
        assert served.ask("POST", path, CHANGE, body=body).status == 400, body
    assert served.ask("POST", path, CHANGE, body=b" " * 30_000).status in (400, 413)
    assert served.ask("POST", "/nbray/api/clusters", CHANGE, body=b"{}").status == 409, "it is the page of one cluster"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 512,
        b"\xff" * 100_000,
        b"SSH-2.0-OpenSSH\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /nbray HTTP/1.1\r\n\r\n",
        b"GET /nbray HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /nbray HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /nbray HTTP/1.1\r\nX: y\r\n Z\x00: a\r\n\r\n",
        b"POST /nbray/api/clusters HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{",
        b"POST /nbray/api/clusters HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /nbray/api/clusters HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    ],
)
def test_garbage_is_turned_away_and_the_server_goes_on(served: Served, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=BOUND_S) as line, contextlib.suppress(OSError):
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        said = b""
        while part := line.recv(65536):
            said += part
        assert not said.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
    assert served.ask("GET", "/nbray").status == 200


def test_a_token_is_good_once_and_becomes_a_cookie_that_no_script_and_no_other_site_has(served: Served) -> None:
    for attribute in ("httponly", "samesite=strict", "path=/"):
        assert attribute in served.set_cookie.lower()
    path = "/" + served.context.dashboard_url.partition("/")[2]
    first = served.ask("GET", path, cookie="")
    assert (first.status, "set-cookie" in first.headers) == (200, True)
    again = served.ask("GET", path, cookie="")
    assert (again.status, "set-cookie" in again.headers) == (403, False)
    assert b"nbray dashboard" in again.body
    assert served.ask("GET", "/nbray").status == 200


def test_only_the_key_makes_tokens_and_it_also_opens_the_metrics_to_a_scraper(served: Served) -> None:
    bearer = {"Authorization": f"Bearer {served.place.key}"}
    assert served.ask("POST", "/nbray/api/tokens", CHANGE, body=b"{}").status == 403, "a visitor's cookie is not enough"
    assert served.ask("POST", "/nbray/api/tokens", {**CHANGE, **bearer}, body=b"{}", cookie="").status == 200
    scraped = served.ask("GET", "/nbray/metrics", bearer, cookie="")
    assert scraped.status == 200
    assert scraped.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'nbray_nodes{State="ALIVE"} 1' in scraped.body
    assert stat.S_IMODE(Path(served.directory, dashboard.FILE).stat().st_mode) == 0o600


def test_the_page_loads_nothing_from_elsewhere_and_cannot_be_framed(served: Served) -> None:
    page = served.ask("GET", "/nbray")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert b"http://" not in page.body
    assert b"https://" not in page.body
    assert b"style=" not in page.body
    for name in ("page.js", "panel.js", "cluster.js", "watch.js", "format.js", "page.css", "panel.css", "icon.svg"):
        answer = served.ask("GET", f"/nbray/static/{name}")
        assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff"), name
        assert b"innerHTML" not in answer.body
    for name in ("card.js", "page.html", "../assets.py", "..%2fassets.py", "%2e%2e/assets.py", "page.js%00"):
        assert served.ask("GET", f"/nbray/static/{name}").status == 404, name


def test_secrets_are_nowhere_that_others_or_a_notebook_look(served: Served) -> None:
    token = served.context.dashboard_url.rpartition("=")[2]
    process = psutil.Process(served.place.pid)
    logs = Path(session.current().description()["log_directory"])
    said = [
        " ".join(process.cmdline()),
        repr(process.environ()),
        repr(served.place),
        repr(served.context),
        served.context._repr_html_(),
    ]
    said += [path.read_text(errors="replace") for path in logs.glob("*.log")]
    for secret in (token, served.place.key):
        assert not [text for text in said if secret in text]


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


def test_every_view_tells_what_there_is_in_texts_that_are_short(served: Served) -> None:
    gate = nbray.remote(num_cpus=0)(Gate).options(name=EVIL * 40).remote()

    def loud(gate: Any, data: Any) -> None:
        print("a line of", EVIL, "\x1b[31mred\x1b[0m")
        nbray.get(gate.wait.remote())

    big = nbray.put(np.zeros(1_000_000, np.uint8))
    held = nbray.remote(loud).options(name=EVIL).remote(gate, big)
    starved = nbray.remote(num_gpus=3)(lambda: None).options(name="s" * 4_000).remote()
    nbray.get(gate.waited.remote())
    (node,) = served.see("overview")["nodes"]
    assert EVIL in [worker["task"] for worker in node["workers"]]
    assert any("pinned" in meter["text"] for meter in node["meters"])
    cells = [cell for view in ("tasks", "actors", "objects", "jobs", "logs") for row in served.see(view)["rows"] for cell in row]
    assert f"{EVIL} (loud)" in cells
    assert "1.0 MB" in cells
    assert max(map(len, cells)) <= 160
    wait_until(lambda: any("num_gpus=3" in text for text in served.see("overview")["nodes"][0]["waiting"]))
    logs = served.see("logs")
    texts = [served.see(f"log/{each}") for each in logs["ids"]]
    assert any(f"a line of {EVIL} red\n" in log["text"] for log in texts)
    gate.open.remote()
    nbray.get(held)
    nbray.cancel(starved)
    failed = nbray.remote(max_retries=0)(lambda: 1 / 0).remote()
    with pytest.raises(ZeroDivisionError):
        nbray.get(failed)
    assert any("failed" in row and "division by zero" in "".join(row) for row in served.see("tasks")["rows"])


def test_a_jobs_timeline_lineage_trace_and_plan_are_told_of_what_has_ended(served: Served) -> None:
    session.current().on_names(lambda: {fitted.binary(): ["best", EVIL]})
    load = nbray.remote(lambda i: i).options(name=f"load {EVIL}")
    fit = nbray.remote(lambda parts: sum(nbray.get(parts))).options(name="fit")
    parts = [load.remote(i) for i in range(8)]
    total = nbray.remote(lambda *parts: sum(parts)).options(name="total").remote(*parts)
    fitted = fit.remote([total])
    assert nbray.get(fitted) == 28
    inner = nbray.remote(lambda: 1).options(name="inner")
    assert nbray.get(nbray.remote(lambda: nbray.get(inner.remote())).options(name="outer").remote()) == 1
    mine = session.current().facts().job.hex()

    def told() -> Any:
        return served.see(f"past/{mine}")

    wait_until(lambda: {"fit", "total", "inner", "outer", f"load {EVIL}"} <= set(told().get("span_names", ())))
    page = told()
    assert [(job["id"], job["state"]) for job in page["jobs"]] == [(mine, "running")]
    assert page["cells"][-1]["title"] == "test_alone.py"
    base = f"/nbray/api/clusters/{served.ask('GET', '/nbray/api/clusters').json()['clusters'][0]['id']}/jobs/{mine}"
    part = served.ask("GET", f"{base}/spans?edition={page['edition']}&first=3").json()
    assert (part["first"], len(base64.b64decode(part["data"])) % 23) == (3, 0)
    trace = served.ask("GET", f"{base}/trace").json()
    assert {"fit", "total"} <= {event["name"] for event in trace}
    graph = served.ask("POST", f"{base}/lineage", CHANGE, body=b"{}").json()
    labels = [node["label"] for node in graph["nodes"]]
    edges = {(labels[a], labels[b], kind) for a, b, kind in graph["edges"]}
    assert {
        (f"load {EVIL} ×8", "total", "data"),
        ("fit", "best", "data"),
        ("fit", EVIL, "data"),
        ("outer", "inner", "submits"),
    } <= edges
    assert graph["silent"] == []
    stuck = [load.options(name="starved", num_gpus=9).remote(i) for i in range(3)]
    graph = served.ask("POST", f"{base}/lineage", CHANGE, body=b"{}").json()
    assert sum(node["queued"] for node in graph["nodes"] if node["kind"] == "task" and node["label"].startswith("starved")) == 3
    for each in stuck:
        nbray.cancel(each)
    plan = served.ask("GET", f"{base}/plan?cell=test_alone.py").json()
    assert len(plan["seconds"]) == len(plan["nodes"])
    rows = served.see("objects")["rows"]
    assert rows[0][0] == f"best, {EVIL}"
    assert all(row[0] for row in rows)
    session.current().on_names(dict)


@pytest.mark.parametrize(
    ("method", "below", "body", "status"),
    [
        ("GET", "spans?edition=x", None, 400),
        ("GET", "spans?first=-1", None, 400),
        ("GET", "spans", None, 404),
        ("GET", "trace", None, 404),
        ("GET", "plan", None, 404),
        ("GET", f"plan?cell={'x' * 500}", None, 400),
        ("POST", "lineage", b"{}", 404),
        ("POST", "lineage", b'{"opened": "all"}', 400),
        ("POST", "lineage", b'{"shut": [7]}', 400),
        ("POST", "lineage", b'{"cell": 7}', 400),
        ("POST", "lineage", b'{"other": ""}', 400),
    ],
)
def test_what_makes_no_sense_about_a_job_is_refused_in_words(
    served: Served, method: str, below: str, body: bytes | None, status: int
) -> None:
    cluster = served.ask("GET", "/nbray/api/clusters").json()["clusters"][0]["id"]
    path = f"/nbray/api/clusters/{cluster}/jobs/{NOBODY}/{below}"
    answer = served.ask(method, path, CHANGE if body is not None else None, body=body)
    assert answer.status == status, answer.body
    assert answer.json()["message"]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_socket_sends_what_the_request_answers_for_as_long_as_it_is_open(served: Served) -> None:
    async def story() -> None:
        line = await websocket_connect(request(served, {"Origin": f"http://127.0.0.1:{served.port}", "Cookie": served.cookie}))
        first = json.loads(await line.read_message())
        (cluster,) = first["clusters"]
        await line.write_message(json.dumps({"cluster": cluster["id"], "views": ["overview", "jobs"]}))
        while not (told := json.loads(await line.read_message()))["views"]:
            continue
        asked = served.ask("GET", f"/nbray/api/snapshot?cluster={cluster['id']}&views=overview,jobs").json()
        assert told.keys() == asked.keys()
        assert told["views"].keys() == asked["views"].keys() == {"overview", "jobs"}
        assert told["views"]["overview"].keys() == asked["views"]["overview"].keys()
        assert told["views"]["jobs"] == asked["views"]["jobs"]
        await line.write_message(json.dumps({"cluster": NOBODY, "views": ["overview"]}))
        while not (told := json.loads(await line.read_message()))["problem"]:
            continue
        assert "no cluster" in told["problem"]
        await ended(line)

    asyncio.run(asyncio.wait_for(story(), BOUND_S))


async def ended(line: Any) -> None:
    line.close()
    while await line.read_message() is not None:
        continue


def request(served: Served, headers: dict[str, str]) -> HTTPRequest:
    return HTTPRequest(f"ws://127.0.0.1:{served.port}/nbray/api/watch", headers=headers, connect_timeout=BOUND_S)


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://localhost:PORT", "https://127.0.0.1.evil.example"])
def test_a_socket_of_another_site_or_of_nobody_is_not_opened(served: Served, origin: str | None) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    foreign = {"Origin": origin.replace("PORT", str(served.port))} if origin else {}
    assert served.ask("GET", "/nbray/api/watch", {**upgrade, **foreign}).status == 403
    ours = {"Origin": f"http://127.0.0.1:{served.port}"}
    assert served.ask("GET", "/nbray/api/watch", {**upgrade, **ours}, cookie="x=y").status == 403
    assert served.ask("GET", "/nbray/api/watch", {**upgrade, **ours, "Host": "evil.example"}).status == 403


@pytest.mark.parametrize("said", ["nonsense", '{"views": ["secrets"]}', "x" * (verbs.CHOICE_BYTES + 1)])
def test_a_socket_that_talks_nonsense_is_closed_and_the_server_goes_on(served: Served, said: str) -> None:
    async def story() -> None:
        line = await websocket_connect(request(served, {"Origin": f"http://127.0.0.1:{served.port}", "Cookie": served.cookie}))
        await line.write_message(said)
        while await line.read_message() is not None:
            continue
        assert line.close_code in (1008, 1009, None)
        line.close()

    asyncio.run(asyncio.wait_for(story(), BOUND_S))
    assert served.ask("GET", "/nbray").status == 200


def test_it_ends_with_its_cluster_and_when_it_dies_the_cluster_goes_on() -> None:
    nbray.shutdown()
    nbray.init(num_cpus=1, include_dashboard=True, dashboard_port=0)
    directory = session.current().description()["directory"]
    place = dashboard.place(directory)
    assert place is not None
    nbray.shutdown()
    assert not psutil.pid_exists(place.pid)
    context = nbray.init(num_cpus=1, include_dashboard=True, dashboard_port=0)
    again = dashboard.place(session.current().description()["directory"])
    assert again is not None
    os.kill(again.pid, 9)
    assert nbray.get(nbray.remote(lambda: "goes on").remote()) == "goes on"
    assert context.dashboard_url == ""
    nbray.shutdown()


def test_a_port_that_is_taken_leaves_the_cluster_and_says_so() -> None:
    taken = nbray.init(num_cpus=1, include_dashboard=True, dashboard_port=0)
    port = int(taken.address_info["webui_url"].rpartition(":")[2])
    directory = session.current().description()["directory"]
    with pytest.raises(nbray.exceptions.NodeStartError, match=f"cannot listen at 127.0.0.1:{port}"):
        dashboard.start(dashboard.Settings(directory, "127.0.0.1", port))
    assert dashboard.place(directory) is not None, "the one that was there keeps its file"
    nbray.shutdown()
