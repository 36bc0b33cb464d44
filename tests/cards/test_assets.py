"""The front end's files as one module: what each declares is declared once, or the page gets a SyntaxError and no card at all."""

from __future__ import annotations

import re
from collections import Counter

from nbray.cards import assets

DECLARED = re.compile(r"^(?:const|let|class|(?:async )?function) (\w+)", re.MULTILINE)


def test_no_name_is_declared_twice_in_the_joined_module() -> None:
    twice = [name for name, count in Counter(DECLARED.findall(assets.module())).items() if count > 1]
    assert twice == []


def test_nothing_is_imported_by_file_name() -> None:
    assert not re.search(r"^import ", assets.module(), re.MULTILINE)
