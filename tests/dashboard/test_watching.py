"""One reader for all who watch a cluster, nothing read for nobody, and nothing queued for the slow. No cluster is needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from nbray.dashboard import watching
from nbray.dashboard.verbs import WatchVerbs, checked_views, choice
from nbray.dashboard.watching import Full, Watch, message

BOUND_S = 10.0


class Reader:
    """What a cluster tells: how often it was asked, and for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, cluster: str, views: tuple[str, ...]) -> dict[str, Any]:
        self.asked.append((cluster, views))
        await self.gate.wait()
        return {"clusters": [], "cluster": cluster, "views": {view: len(self.asked) for view in views}, "problem": ""}


class Page:
    """A watcher that keeps what it gets."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[str] = asyncio.Queue()

    def offer(self, text: str) -> None:
        self.got.put_nowait(text)

    async def next(self) -> dict[str, Any]:
        return dict(json.loads(await self.got.get()))


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, BOUND_S)

    asyncio.run(bounded())


def test_two_pages_of_one_cluster_share_a_reader_and_each_sees_its_own_views() -> None:
    async def story() -> None:
        reader = Reader()
        watch = Watch(reader.read, period_s=0.001)
        one, other = Page(), Page()
        for page, views in ((one, ("tasks",)), (other, ("tasks", "logs"))):
            watch.join(page)
            watch.choose(page, "c", views)
        while (seen := await other.next())["cluster"] != "c":
            continue
        while (mine := await one.next())["cluster"] != "c":
            continue
        assert set(seen["views"]) == {"tasks", "logs"}
        assert set(mine["views"]) == {"tasks"}
        assert ("c", ("logs", "tasks")) in reader.asked
        assert watch.readers <= 2  # of "c", and the one of nothing chosen that is on its way out
        watch.close()

    run(story())


def test_nothing_is_read_when_the_last_page_has_gone() -> None:
    async def story() -> None:
        reader = Reader()
        watch = Watch(reader.read, period_s=0.001)
        page = Page()
        watch.join(page)
        watch.choose(page, "c", ("overview",))
        while (await page.next())["cluster"] != "c":
            continue
        watch.leave(page)
        while watch.readers:  # noqa: ASYNC110 -- it is the reader that is waited for, and it has no event
            await asyncio.sleep(0.001)
        count = len(reader.asked)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reader.asked) == count
        watch.join(page)
        assert (await page.next())["cluster"] in ("", "c")
        watch.close()

    run(story())


def test_a_page_that_chooses_something_else_is_told_at_once_and_not_a_period_later() -> None:
    async def story() -> None:
        reader = Reader()
        watch = Watch(reader.read, period_s=3600)
        page = Page()
        watch.join(page)
        watch.choose(page, "c", ("overview",))
        while (await page.next())["cluster"] != "c":
            continue
        watch.choose(page, "c", ("tasks",))
        assert set((await page.next())["views"]) == {"tasks"}
        watch.close()

    run(story())


def test_a_cluster_that_is_slow_to_tell_is_asked_once_at_a_time() -> None:
    async def story() -> None:
        reader = Reader()
        watch = Watch(reader.read, period_s=0.0)
        pages = [Page() for _ in range(5)]
        reader.gate.clear()
        for page in pages:
            watch.join(page)
            watch.choose(page, "c", ("overview",))
        for _ in range(100):
            await asyncio.sleep(0)
        assert [cluster for cluster, _ in reader.asked].count("c") == 1
        reader.gate.set()
        assert (await pages[-1].next())["cluster"] == "c"
        watch.close()

    run(story())


def test_more_pages_than_there_is_room_for_are_refused() -> None:
    async def story() -> None:
        watch = Watch(Reader().read)
        for _ in range(watching.MOST_WATCHERS):
            watch.join(Page())
        with pytest.raises(Full, match="close some"):
            watch.join(Page())
        watch.close()

    run(story())


def test_a_message_that_would_be_too_long_says_so_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_BYTES", 200)
    told = json.loads(message({"clusters": [], "cluster": "c", "views": {"tasks": "x" * 500}, "problem": ""}, ("tasks",)))
    assert told["views"] == {}
    assert "too much to show" in told["problem"]


class Sockets(WatchVerbs):
    """The socket's handler, open to everybody and kept in view."""

    opened: ClassVar[list[WatchVerbs]] = []

    def open(self, *args: str, **kwargs: str) -> None:
        self.opened.append(self)
        self.begin()


class OnlyWatch:
    """What a handler needs of a server."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch


def test_a_page_that_never_reads_is_skipped_so_that_nothing_piles_up_for_it() -> None:
    size, rounds = 200_000, 200

    async def story() -> None:
        asked, enough = 0, asyncio.Event()

        async def read(cluster: str, views: tuple[str, ...]) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked >= rounds:
                enough.set()
            return {"clusters": [], "cluster": cluster, "views": dict.fromkeys(views, "x" * size), "problem": ""}

        watch = Watch(read, period_s=0.001)
        server = HTTPServer(web.Application([("/watch", Sockets, {"shared": OnlyWatch(watch)})]))
        (listening,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        port = listening.getsockname()[1]
        deaf = await websocket_connect(f"ws://127.0.0.1:{port}/watch")
        loop = asyncio.get_running_loop()
        await deaf.write_message('{"cluster": "c", "views": ["overview"]}')
        loop.remove_reader(deaf.protocol.stream.fileno())  # type: ignore[union-attr]
        await enough.wait()
        (handler,) = Sockets.opened
        waiting = len(handler.ws_connection.stream._write_buffer)  # type: ignore[union-attr]
        assert waiting <= 2 * size, f"{waiting:,} bytes wait for a page that does not read"
        watch.close()
        deaf.protocol.stream.close()  # type: ignore[union-attr]
        deaf.close()
        await asyncio.sleep(0)
        server.stop()
        await server.close_all_connections()

    run(story())


@pytest.mark.parametrize(
    "said",
    [
        "nonsense",
        "[" * 500,
        "[]",
        "null",
        '{"cluster": 7}',
        '{"cluster": "' + "a" * 17 + '"}',
        '{"views": "tasks"}',
        '{"views": ["secrets"]}',
        '{"views": [7]}',
        '{"views": ["log/../../etc/passwd"]}',
        '{"views": ["overview", "tasks", "actors", "objects", "jobs"]}',
        '{"__proto__": {}}',
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|say|views of"):
        choice(said)


def test_a_choice_may_leave_out_what_it_does_not_want() -> None:
    assert choice("{}") == ("", ())
    assert choice(b'{"cluster": "00ff00ff00ff00ff", "views": ["tasks", "tasks"]}') == ("00ff00ff00ff00ff", ("tasks",))
    assert checked_views(["logs", "log/00ff00ff00ff00ff"]) == ("logs", "log/00ff00ff00ff00ff")
