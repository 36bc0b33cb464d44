"""Tab after `%%remote` and `%nbray`: exactly the options and words there are, with nothing of IPython's own mixed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nbray.actors import ActorHandle
from nbray.notebook.arguments import option_names
from nbray.notebook.current import Notebook
from nbray.notebook.magics import NbrayMagics

CHOICES = {
    "--on-interrupt": ["cancel", "detach"],
    "--on-error": ["snapshot", "plain"],
    "--view": ["card", "line", "none"],
    "--group": ["live", "worker", "order"],
    "--profile": ["none", "cpu", "mem"],
}
NAMES = frozenset({"-i", "--in", "-o", "--out"})


def candidates(line: str, remote_options: Sequence[str], words: Sequence[str], options_of_word: Callable[[str], Sequence[str]],
               variables: Sequence[str], places: Sequence[str]) -> list[str] | None:  # fmt: skip
    """What may stand at the end of `line`, the text up to the cursor; None when it is no line of ours."""
    parts = line.split(" ")
    typed, before = parts[-1], parts[:-1]
    if before[:1] == ["%%remote"]:
        previous = before[-1]
        if previous in CHOICES:
            return [choice for choice in CHOICES[previous] if choice.startswith(typed)]
        if previous in NAMES:
            done, comma, last = typed.rpartition(",")
            return [done + comma + name for name in variables if name.startswith(last)]
        if previous == "--on":
            return [name for name in places if name.startswith(typed)]
        return [option for option in remote_options if option.startswith(typed)]
    if before[:1] == ["%nbray"]:
        known = words if len(before) == 1 else options_of_word(before[1])
        return [word for word in known if word.startswith(typed)]
    return None


def make_matcher(notebook: Notebook, magics: NbrayMagics) -> Any:
    """The matcher to add to `ip.Completer.custom_matchers`."""

    @context_matcher()
    def nbray_matcher(context: CompletionContext) -> SimpleMatcherResult:
        line = context.line_with_cursor[: context.cursor_position]
        variables = [name for name in notebook.namespace if not name.startswith("_")]
        places = [name for name in variables if isinstance(notebook.namespace[name], ActorHandle)]
        found = candidates(
            line, option_names(magics.remote_cell), list(magics.subcommands.words), magics.subcommands.options, variables, places
        )
        completions = [SimpleCompletion(text=text, type="magic option") for text in found or ()]
        return {"completions": completions, "suppress": found is not None}

    return nbray_matcher
