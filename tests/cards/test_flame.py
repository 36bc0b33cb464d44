"""A flame graph as a tree: sums stay what they are whatever is merged, cut or sent, and nothing that a program named is markup."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from nbray.cards.flame import WIDTH, Flame


def flame(*stacks: tuple[str, int], kind: str = "cpu") -> Flame:
    made = Flame(kind, 100 if kind == "cpu" else 0)
    for stack, value in stacks:
        made.add(stack.split(";"), value)
    return made


def test_a_frame_has_what_it_took_itself_and_what_it_called() -> None:
    made = flame(("cell;f", 3), ("cell;f;g", 5), ("cell", 2))
    assert made.total == 10
    assert made.top() == [("g", 5, 5), ("f", 3, 8), ("cell", 2, 10)]
    assert made.folded() == ["cell 2", "cell;f 3", "cell;f;g 5"]


def test_a_function_that_calls_itself_counts_once() -> None:
    assert flame(("f;f;f", 4), ("f", 1)).top() == [("f", 5, 5)]


def test_times_of_tasks_add_up_and_of_memory_the_task_that_needed_most_is_shown() -> None:
    times = flame(("f", 3))
    times.merge(flame(("f", 4), ("g", 1)))
    assert (times.total, times.tasks) == (8, 2)
    memory = flame(("f", 3), kind="mem")
    memory.merge(flame(("g", 9), kind="mem"))
    memory.merge(flame(("h", 5), kind="mem"))
    assert (memory.folded(), memory.tasks) == (["g 9"], 3)
    assert "of the task that needed most, of 3 tasks" in memory.heading()


def test_the_text_form_says_how_much_where() -> None:
    assert flame(("In[7] line 2;fit (model.py)", 90), ("In[7] line 3", 10)).lines() == [
        "CPU time: 1.0 s in 1 task, 100 samples a second",
        "   90.0%  900 ms  fit (model.py)",
        "   10.0%  100 ms  In[7] line 3",
    ]
    assert "no sample" in flame().heading()


def test_what_a_program_named_is_never_markup() -> None:
    drawn = flame(("<script>alert(1)</script>", 3)).html()
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_a_callee_is_below_its_caller_and_no_wider() -> None:
    drawn = flame(("a;b", 1), ("a", 1), ("c", 2)).svg()
    assert f'<rect x="0.0" y="0" width="{WIDTH / 2 - 0.5:.1f}"' in drawn
    assert f'<rect x="0.0" y="17" width="{WIDTH / 4 - 0.5:.1f}"' in drawn
    assert f'<rect x="{WIDTH / 2:.1f}" y="0"' in drawn


stacks = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8).map(";".join), st.integers(1, 50)), max_size=60
)


@given(stacks, stacks, st.integers(1, 40))
def test_nothing_is_lost_when_trees_are_merged_sent_and_cut(
    one: list[tuple[str, int]], other: list[tuple[str, int]], most: int
) -> None:
    first, second = flame(*one), flame(*other)
    total = first.total + second.total
    first.merge(second)
    data = first.to_data(most)
    assert len(json.dumps(data)) < 200 + 120 * max(most, 6)
    again = Flame.of_data(data)
    assert again.total == first.total == total
    assert Flame.of_data(first.to_data()).folded() == first.folded()
