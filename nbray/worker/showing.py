"""`display(x)` inside a task: the richest forms that `x` has of itself, sent to the notebook.

IPython is not imported for it (it takes longer than most tasks); when user code imports it, its `display` becomes this one,
because in a worker there is no shell that could show anything.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import io
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

#: (data, metadata, transient, update)
Sender = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], bool], None]

DISPLAY_MODULE = "IPython.core.display_functions"
FORMS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_pdf_": "application/pdf",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}


def display_here() -> Any:
    """The `display` of this process: a worker's, or IPython's in a notebook."""
    found = getattr(builtins, "display", None)
    return found if found is not None else importlib.import_module("IPython.display").display


class Handle:
    """What `display(x, display_id=True)` returns: `update(y)` replaces what is shown. Works wherever it travels."""

    def __init__(self, display_id: str) -> None:
        self.display_id = display_id

    def display(self, shown: Any, **options: Any) -> None:
        display_here()(shown, display_id=self.display_id, **options)

    def update(self, shown: Any, **options: Any) -> None:
        display_here()(shown, display_id=self.display_id, update=True, **options)


def bundle(shown: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(data, metadata) of an object, by MIME type; its repr is always there. A form that raises is left out."""
    data: dict[str, Any] = {"text/plain": repr(shown)}
    metadata: dict[str, Any] = {}
    whole = _form(shown, "_repr_mimebundle_")
    if whole is not None:
        given, about = whole if isinstance(whole, tuple) else (whole, {})
        data.update(given)
        metadata.update(about)
    for method, mime in FORMS.items():
        form = _form(shown, method)
        if form is not None and mime not in data:
            data[mime], about = form if isinstance(form, tuple) else (form, None)
            if about:
                metadata[mime] = about
    if "image/png" not in data and type(shown).__module__.startswith("matplotlib.figure"):
        file = io.BytesIO()
        shown.savefig(file, format="png", bbox_inches="tight")
        data["image/png"] = file.getvalue()
    return data, metadata


def _form(shown: Any, method: str) -> Any:
    if isinstance(shown, type):  # the methods are its instances'
        return None
    try:
        function = getattr(shown, method, None)
        return function() if callable(function) else None
    except Exception:  # noqa: BLE001 -- as IPython does: the other forms still show
        return None


class TaskDisplay:
    """`display` with IPython's signature, sending to the notebook. Pickled, it is the `display` of wherever it is loaded."""

    def __init__(self, send: Sender) -> None:
        self._send = send

    def __call__(
        self,
        *objects: Any,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        transient: Mapping[str, Any] | None = None,
        display_id: Any = None,
        raw: bool = False,
        update: bool = False,
        clear: bool = False,
        **_others: Any,
    ) -> Handle | None:
        del clear  # output of other tasks may be under the same cell
        if update and display_id is None:
            raise TypeError("display(update=True) needs the display_id to update")
        name = None if display_id is None else uuid.uuid4().hex if display_id is True else str(display_id)
        about = dict(transient or {}, **({"display_id": name} if name else {}))
        for shown in objects:
            data, found = (dict(shown), {}) if raw else bundle(shown)
            if include is not None:
                data = {mime: form for mime, form in data.items() if mime in include}
            if exclude is not None:
                data = {mime: form for mime, form in data.items() if mime not in exclude}
            self._send(data, {**found, **(metadata or {})}, about, update)
        return Handle(name) if name else None

    def __reduce__(self) -> tuple[Any, ...]:
        return display_here, ()


def install(send: Sender) -> None:
    """Make `display` a builtin, as notebooks have it, and IPython's own when user code imports it."""
    display = TaskDisplay(send)
    builtins.display = display  # type: ignore[attr-defined]

    def publish(
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **_others: Any,
    ) -> None:
        send(dict(data), dict(metadata or {}), dict(transient or {}), update)

    def replace(module: ModuleType) -> None:
        vars(module).update(display=display, publish_display_data=publish)

    if DISPLAY_MODULE in sys.modules:
        replace(sys.modules[DISPLAY_MODULE])
    else:
        sys.meta_path.insert(0, _AfterImport(DISPLAY_MODULE, replace))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls `then` with the module `name` when it has been imported, once."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load, then = spec.loader.exec_module, self._then

            def exec_module(module: ModuleType) -> None:
                load(module)
                then(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
