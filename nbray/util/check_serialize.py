"""`inspect_serializability`: which part of a value does not pickle, told step by step."""

from __future__ import annotations

from typing import Any, NamedTuple, TextIO

from nbray.serializability import pickles, trail_to_culprit


class FailureTuple(NamedTuple):
    """A part that does not pickle. `name` is how it is reached from the value; `parent` is what holds it."""

    obj: Any
    name: str
    parent: Any

    def __hash__(self) -> int:
        return hash((id(self.obj), self.name))  # what does not pickle often does not hash either

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [obj={self.obj!r}, parent={self.parent!r}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether `base_obj` pickles; if not, also the innermost part found within `depth` steps that does not.

    What was found is printed, to `print_file` or standard output.
    """
    title = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    print(f"Checking Serializability of {base_obj!r:.200}", file=print_file)
    if pickles(base_obj):
        print("It pickles.", file=print_file)
        return True, set()
    trail = trail_to_culprit(base_obj, title, max(0, depth))
    for steps, (path, part) in enumerate(trail):
        print(f"{'    ' * steps}!!! FAIL serialization: {path} is a {type(part).__name__}: {part!r:.200}", file=print_file)
    path, part = trail[-1]
    parent = trail[-2][1] if len(trail) > 1 else None
    print(
        f"{path} was found to be non-serializable. Make it where it is used, leave it out with __getstate__, or keep it in an "
        "actor. Other parts may not pickle either: look again when this one is gone.",
        file=print_file,
    )
    return False, {FailureTuple(part, path, parent)}
