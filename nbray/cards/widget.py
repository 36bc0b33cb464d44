"""Live views in the page: one model that carries the code, and a small one for each view.

Every anywidget sends its whole module when it opens. A notebook has many cards, so the code travels once, in `Code`; a card's
own module only asks for it. What a card shows goes as custom messages with numbers: a Jupyter server drops messages above a
rate, so a page that sees a gap says `resync` and gets everything again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from nbray.cards import assets

Command = Callable[..., Any]

_SHELF = """
const SHELF = "__nbray_code";
async function code(model) {
  const shelf = (globalThis[SHELF] ??= {});
  const version = model.get("version");
  shelf[version] ??= (async () => {
    const holder = await model.widget_manager.get_model(model.get("code"));
    const url = URL.createObjectURL(new Blob([holder.get("source")], { type: "text/javascript" }));
    const style = document.createElement("style");
    style.textContent = holder.get("style");
    document.head.append(style);
    return import(/* webpackIgnore: true */ url).finally(() => URL.revokeObjectURL(url));
  })().catch((error) => { delete shelf[version]; throw error; });
  return shelf[version];
}
function asker(model) {
  let number = 0;
  const waiting = new Map(), page = Math.random().toString(36).slice(2); // every view of a model hears every answer
  return {
    ask: (name, args) => new Promise((resolve, reject) => {
      const id = `${page}-${++number}`;
      waiting.set(id, { resolve, reject });
      model.send({ id, command: name, args: args ?? {} });
    }),
    answered(message) {
      const asked = waiting.get(message.answer);
      waiting.delete(message.answer);
      if (asked) message.error ? asked.reject(new Error(message.error)) : asked.resolve(message.result);
    },
  };
}
"""

_CARD = """
export default {
  async render({ model, el }) {
    const { createCard } = await code(model);
    const kernel = asker(model);
    const view = createCard(el, { live: true, command: kernel.ask });
    const take = (message, buffers) => { message.answer !== undefined ? kernel.answered(message) : view.update(message, buffers); };
    model.on("msg:custom", take);
    view.update({ snapshot: model.get("first") });
    view.resync();
    return () => { model.off("msg:custom", take); view.remove(); };
  },
};
"""

# A picture says whether it is looked at, again and again: a page that was closed says nothing any more. And it says itself that
# nothing has come for a while.
_PICTURE = """
const BEAT_MS = 20000, SILENT_MS = 15000;
export default {
  async render({ model, el }) {
    const make = (await code(model))[model.get("make")], kernel = asker(model), page = Math.random().toString(36).slice(2);
    const view = make(el, { command: kernel.ask, can: model.get("can") });
    let near = true, seen = null, heard = performance.now(), last = model.get("first"), since = new Date();
    const tell = () => model.send({ id: 0, command: "seen", args: { page, seen } });
    const look = () => {
      if (seen === (near && !document.hidden)) return;
      seen = !seen;
      heard = performance.now();
      tell();
    };
    const watch = new IntersectionObserver((entries) => { near = entries.at(-1).isIntersecting; look(); });
    const beat = setInterval(() => { if (seen) tell(); }, BEAT_MS);
    const clock = setInterval(() => {
      if (!seen || !last || last.over || performance.now() - heard < SILENT_MS) return;
      const gone = `The kernel says nothing: it is busy, or gone. This is how it was at ${since.toLocaleTimeString()}.`;
      view.update({ ...last, gone });
    }, 1000);
    const take = (message, buffers) => {
      if (message.answer !== undefined) { kernel.answered(message); return; }
      heard = performance.now();
      if (message.snapshot === undefined) { if (last) view.update(last); return; }
      [last, since] = [message.snapshot, new Date()];
      view.update(message.snapshot, buffers);
    };
    model.on("msg:custom", take);
    document.addEventListener("visibilitychange", look);
    watch.observe(el);
    seen = false;
    view.update(last);
    look();
    return () => {
      model.off("msg:custom", take);
      document.removeEventListener("visibilitychange", look);
      watch.disconnect();
      clearInterval(beat);
      clearInterval(clock);
      if (seen) { seen = false; tell(); }
      view.remove();
    };
  },
};
"""


class Code(anywidget.AnyWidget):
    """Holds the code for every view of one kernel. Never shown."""

    _esm = "export default { render() {} }"
    source = traitlets.Unicode().tag(sync=True)
    style = traitlets.Unicode().tag(sync=True)


_code: list[Code] = []
_code_lock = threading.Lock()


def code() -> Code:
    """The kernel's one holder of code, made at first use."""
    with _code_lock:
        if not _code or _code[0].comm is None:
            _code[:] = [Code(source=assets.module(), style=assets.style())]
        return _code[0]


class Asked(anywidget.AnyWidget):
    """A view whose page may ask: `commands` are what for, by name; each gets its arguments as keywords."""

    code = traitlets.Unicode().tag(sync=True)
    version = traitlets.Unicode().tag(sync=True)
    first = traitlets.Dict().tag(sync=True)  #: what to draw before anything is answered

    def __init__(self, commands: dict[str, Command], first: dict[str, Any], **more: Any) -> None:
        self._commands = commands
        self._count_lock = threading.Lock()
        self._answering, self._closing = 0, False
        super().__init__(code=code().model_id, version=assets.version(), first=first, **more)
        self.on_msg(self._asked)
        if hasattr(self.comm, "_reply_subshell_for"):
            # ipykernel 7.4 hands what the page sends to the shell that last used the comm, here the one that is blocked by the
            # cell. The subshell that the page asked for can answer at once, so it keeps what it was given.
            self.comm._reply_subshell_for = lambda _data, asked: asked

    def _asked(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Runs in the kernel's main thread or, while a cell blocks, in one of a subshell."""
        if not isinstance(message, dict) or "command" not in message:
            return
        answer: dict[str, Any] = {"answer": message.get("id")}
        with self._count_lock:
            self._answering += 1
        try:
            command = self._commands[message["command"]]
            answer["result"] = command(**message.get("args", {}))
        except Exception as error:  # noqa: BLE001 -- the page says what went wrong; silence would look like a dead button
            answer["error"] = f"{type(error).__name__}: {error}"
        self.send(answer)
        with self._count_lock:
            self._answering -= 1
            last = self._closing and not self._answering
        if last:
            super().close()

    def close(self) -> None:
        """What is being asked is answered first: a command may end what is shown, as Cancel does."""
        with self._count_lock:
            self._closing = True
            if self._answering:
                return
        super().close()


class View(Asked):
    """One live card."""

    _esm = _SHELF + _CARD


class Picture(Asked):
    """One live picture (nbray/widgets). `make` is the function of the front end that draws it, `can` what its page may do."""

    _esm = _SHELF + _PICTURE
    make = traitlets.Unicode().tag(sync=True)
    can = traitlets.List(traitlets.Unicode()).tag(sync=True)
