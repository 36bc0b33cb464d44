"""The notebook that a view is shown in, as far as the loaded extension knows it: its cells' cards, and its names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbray.notebook.cards import Card, Desk
    from nbray.notebook.current import Notebook


def shell_here() -> Any:
    """IPython's shell; None outside of IPython, which is not imported for this."""
    module = sys.modules.get("IPython.core.getipython")
    return module.get_ipython() if module is not None else None


def notebook_here() -> Notebook | None:
    """What `%load_ext nbray` made; None where it was not loaded."""
    extension = getattr(shell_here(), "_nbray_extension", None)
    return None if extension is None else extension.notebook


def namespace_here() -> dict[str, Any]:
    """The names that a person at work here sees."""
    shell = shell_here()
    found: dict[str, Any] = shell.user_ns if shell is not None else vars(sys.modules["__main__"])
    return found


class Cards:
    """The cards of this notebook's cells, running ones and the latest that are over."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def titles(self) -> list[str]:
        return list(dict.fromkeys([*self._desk.ended, *(card.run.title for card in list(self._desk.cards.values()))]))

    def find(self, cell: Any) -> Card | None:
        """The card of a cell: by number, title, tag or handle. None: of what runs, else of what ran last."""
        live, ended = list(self._desk.cards.values()), list(self._desk.ended.values())
        if cell is None:
            return next(iter([*reversed(live), *reversed(ended)]), None)
        wanted = {str(getattr(cell, "tag", cell)), f"In[{cell}]"}
        return next((card for card in [*reversed(live), *reversed(ended)] if {card.tag, card.run.title} & wanted), None)


def cards_here() -> Cards | None:
    notebook = notebook_here()
    return None if notebook is None or notebook.desk is None else Cards(notebook.desk)
