"""What all views have in common: a snapshot, its text and its HTML, and in a kernel a live picture of it while somebody looks.

    shown --> live: a page says that it sees the picture, again every 20 s     seen --> drawn at most twice a second
                                                                             unseen --> nothing is asked and nothing is sent
    the kernel ends --> still: text and HTML under the same display id

One thread draws all pictures; it ends when nobody looks. Outside of a kernel, and without anywidget, a picture is still.
"""

from __future__ import annotations

import atexit
import html
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbray.exceptions import RayError

if TYPE_CHECKING:
    from nbray.cards.widget import Picture as Live

PERIOD_S = 0.5
#: Looking takes at most this share of the time, however long one look takes.
SHARE = 0.1
#: A page that was closed says nothing any more; one that is open says every 20 s that it looks.
SEEN_S = 120.0
#: A picture that has not changed says that it lives.
BEAT_S = 5.0
WIDGET = "application/vnd.jupyter.widget-view+json"
INSTALL = "a still picture: `pip install anywidget` makes it live"

Snapshot = dict[str, Any]


class Picture:
    """The base of all views. A subclass says what there is to see; `_make` is the function of the front end that draws it."""

    _make = ""
    _asks = False  #: a look is a question to others, so that it may take its time
    _stays = False  #: once it is over it is left as text and HTML: there is nothing more to ask it

    def __init__(self) -> None:
        self._lock = threading.RLock()  #: held while somebody looks

    # -- for subclasses

    def _look(self) -> Snapshot:
        """What there is to see, as JSON. "gone" in it says why it is old; "over" that it does not change any more."""
        raise NotImplementedError

    def _changes(self) -> tuple[Snapshot, list[bytes]] | None:
        """What to send to pages that have been told before, with binary parts; None if that is nothing."""
        return self._look(), []

    def _text(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _html(self, snapshot: Snapshot) -> str:
        raise NotImplementedError

    def _commands(self) -> dict[str, Callable[..., Any]]:
        """What its page may ask for."""
        return {}

    def _can(self) -> list[str]:
        """What its page offers."""
        return []

    # -- as Python and notebooks ask for it

    def __repr__(self) -> str:
        return self._text(self._now())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        return self._still(self._now())

    def _ipython_display_(self) -> None:
        kernel_display = display_in_kernel()
        if kernel_display is None:
            raise NotImplementedError  # IPython then takes the other forms
        snapshot = self._now()
        data: dict[str, Any] = self._still(snapshot)
        live = self._open(snapshot)
        if live is None:
            data["text/html"] += f'<div style="font-size:85%;color:var(--jp-ui-font-color2,#767676)">{html.escape(INSTALL)}</div>'
            kernel_display(data, raw=True)
            return
        data[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": live.model_id}
        kernel_display(data, raw=True, display_id=live.model_id)
        projector.add(Shown(self, live, kernel_display))

    def _open(self, snapshot: Snapshot) -> Live | None:
        try:
            from nbray.cards.widget import Picture as Live
        except ImportError:
            return None
        commands = self._commands()
        commands["seen"] = lambda page, seen: projector.seen(self, page, seen=seen)
        return Live(commands, snapshot, make=self._make, can=self._can())

    def _now(self) -> Snapshot:
        """A look that never fails: a repr must not."""
        try:
            with self._lock:
                return self._look()
        except (RayError, OSError, ValueError) as error:
            return {"gone": f"{type(error).__name__}: {error}"}

    def _still(self, snapshot: Snapshot) -> dict[str, str]:
        return {"text/plain": self._text(snapshot), "text/html": self._html(snapshot)}


def display_in_kernel() -> Callable[..., Any] | None:
    """IPython's `display`, where this is a kernel."""
    try:
        from IPython.core.display_functions import display
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return display if getattr(shell, "kernel", None) is not None else None


class Shown:
    """One picture in the page, and who sees it."""

    def __init__(self, picture: Picture, live: Live, display: Callable[..., Any]) -> None:
        self.picture, self.live, self._display = picture, live, display
        self.pages: dict[str, float] = {}  #: that see it -> until when that is believed
        self.due_s = 0.0
        self.over = False
        self._sent_s = 0.0
        self._last: Snapshot | None = None

    def is_seen(self, now_s: float) -> bool:
        return not self.over and any(until > now_s for until in self.pages.values())

    def draw(self) -> None:
        begun = time.monotonic()
        try:
            with self.picture._lock:
                news = self.picture._changes()
        except (RayError, OSError, ValueError) as error:
            news = {"gone": f"{type(error).__name__}: {error}"}, []
        now = time.monotonic()
        self.due_s = max(begun + PERIOD_S, now + (now - begun) / SHARE)
        if news is not None and (news[1] or news[0] != self._last):
            self._last, self._sent_s = news[0], now
            self.live.send({"snapshot": news[0]}, news[1])
            self.over = bool(news[0].get("over"))
            if self.over and self.picture._stays:
                self.settle()
        elif now - self._sent_s >= BEAT_S:
            self._sent_s = now
            self.live.send({"beat": True})

    def settle(self) -> None:
        """It stays as it is now, with no widget behind it."""
        self.over = True
        snapshot = self._last if self.picture._asks else self.picture._now()
        data = self.picture._still(snapshot or self.live.first)
        self._display(data, raw=True, display_id=self.live.model_id, update=True)


class Projector:
    """Draws every picture that is seen, in one thread."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, shown: Shown) -> None:
        with self._wake:
            if not self.shown:
                atexit.register(self.close)
            self.shown = [each for each in self.shown if each.live.comm is not None]
            self.shown.append(shown)

    def seen(self, picture: Picture, page: str, *, seen: bool) -> None:
        """A page sees the picture, or does not any more."""
        with self._wake:
            for shown in self._of(picture):
                if seen:
                    shown.pages[page] = time.monotonic() + SEEN_S
                else:
                    shown.pages.pop(page, None)
            self._begin()

    def resync(self, picture: Picture) -> None:
        """A page lacks something: everything is sent again."""
        with self._wake:
            for shown in self._of(picture):
                shown.over, shown._last, shown.due_s = False, None, 0.0
            self._begin()

    def _begin(self) -> None:
        """There may be something to draw, or nothing any more."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw, name="nbray-pictures", daemon=True)
            self._thread.start()
        self._wake.notify()

    def _of(self, picture: Picture) -> list[Shown]:
        return [each for each in self.shown if each.picture is picture]

    def _draw(self) -> None:
        while True:
            with self._wake:
                now = time.monotonic()
                seen = [each for each in self.shown if each.live.comm is not None and each.is_seen(now)]
                if not seen:
                    self._thread = None
                    return
                due = [each for each in seen if each.due_s <= now]
                if not due:
                    self._wake.wait(max(0.01, min(each.due_s for each in seen) - now))
                    continue
            for each in due:
                each.draw()

    def close(self) -> None:
        """The kernel ends: what is shown stays as it is."""
        with self._wake:
            shown, self.shown = self.shown, []
        for each in shown:
            if each.live.comm is not None:
                each.settle()


projector = Projector()
