"""Labels of nodes, and the conditions that work may put on them. Pure.

    "v"  has that value       "in(a, b)"   one of them      "exists()"   has the label
    "!v" has not that value   "!in(a, b)"  none of them     "!exists()"  has not the label

A node without the label has none of its values, so the negative ones hold for it. `Selector` is a list of (label, condition),
all of which must hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from nbray.wire.messages import Selector

#: Labels that the runtime gives to nodes begin with this; people's own do not.
RESERVED = "ray.io/"
NODE_ID = "ray.io/node-id"

_WORD = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_VALUE = re.compile(_WORD)
_PREFIX = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_CONDITION = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\)|exists\(\))|!?")
_SYNTAX = (
    "63 characters or less beginning and ending with an alphanumeric character ([a-z0-9A-Z]) with dashes (-), underscores (_), "
    "dots (.), and alphanumerics between"
)


def matches(labels: Mapping[str, str], selector: Selector) -> bool:
    """Whether a node with these labels meets every condition."""
    return all(_holds(labels.get(key), *_parsed(condition)) for key, condition in selector)


def best_rank(labels: Mapping[str, str], selectors: Sequence[Selector]) -> int | None:
    """The place of the first selector that the labels meet; 0 if there are none, None if they meet none of them."""
    if not selectors:
        return 0
    return next((rank for rank, selector in enumerate(selectors) if matches(labels, selector)), None)


def _holds(value: str | None, negative: bool, wanted: frozenset[str] | None) -> bool:
    has = value is not None if wanted is None else value in wanted
    return has != negative


@lru_cache(maxsize=1024)
def _parsed(condition: str) -> tuple[bool, frozenset[str] | None]:
    """(whether it is negative, the values; None for "any value")."""
    negative = condition.startswith("!")
    rest = condition[negative:]
    if rest == "exists()":
        return negative, None
    if rest.startswith("in("):
        return negative, frozenset(word.strip() for word in rest[3:-1].split(","))
    return negative, frozenset({rest})


def check_key(key: object) -> str:
    """A label's name: `name` or `prefix/name`. Raises TypeError or ValueError."""
    if not isinstance(key, str):
        raise TypeError(f"a label's name is a str, not {type(key)}")
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        raise ValueError(
            f"Invalid label key prefix `{prefix}`. Prefix must be a series of DNS labels separated by dots (.), not longer than "
            "253 characters in total."
        )
    if not _VALUE.fullmatch(name):
        raise ValueError(f"Invalid label key name `{name}`. Name must be {_SYNTAX}.")
    return key


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a node as a person gave them. Raises TypeError or ValueError naming the one that is wrong."""
    for key, value in labels.items():
        if check_key(key).startswith(RESERVED):
            reserved = "This is reserved for the runtime's own labels."
            raise ValueError(f"Custom label keys `{key}` cannot start with the prefix `{RESERVED}`. {reserved}")
        check_value(value)
    return dict(labels)


def check_value(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"The value of a label is a str, not {type(value)}")
    if value and not _VALUE.fullmatch(value):
        raise ValueError(f"Invalid label key value `{value}`. Value must be {_SYNTAX}.")
    return value


def check_condition(condition: object) -> str:
    """A condition as a person wrote it. Raises TypeError or ValueError."""
    if not isinstance(condition, str):
        raise TypeError(f"a label's condition is a str like 'v', '!v', 'in(a, b)' or '!in(a, b)', not {type(condition)}")
    if not _CONDITION.fullmatch(condition):
        raise ValueError(
            f"Invalid label selector value `{condition}`. The label selector value should contain optional operators and a label "
            f"value. Supported operators are: ! and in(). Value must be {_SYNTAX}."
        )
    return condition


def in_words(selectors: Sequence[Selector]) -> str:
    """The conditions as a person reads them: "zone=in(a, b) and disk=!hdd, or zone=c"."""
    return ", or ".join(" and ".join(f"{key}={condition}" for key, condition in selector) or "any" for selector in selectors)
