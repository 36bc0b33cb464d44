"""The options of `%%remote`: every one of them, and what is said about a mistake."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.magic_arguments import magic_arguments

from nbray.notebook.arguments import (
    DEFAULTS,
    CellOptions,
    cell_args,
    data_args,
    each_args,
    options_of,
    output_args,
    parse,
    place_args,
    read_seconds,
    read_size,
    run_args,
)


@magic_arguments()
@data_args
@each_args
@place_args
@run_args
@output_args
@cell_args
def remote(_line: str) -> None:
    """The options of the magic, on a plain function."""


GIVEN = [
    ("-i a,b --in c", "inputs", ("a", "b", "c")),
    ("-o a -o a,b", "outputs", ("a", "b")),
    ("--refs", "refs", True),
    ("--values", "refs", False),
    ("--max-fetch 1.5GB", "max_fetch", 1_500_000_000),
    ("--each seed=range(100)", "each", ("seed", "range(100)")),
    ('--each "x=[1, 2]"', "each", ("x", "[1, 2]")),
    ("--chunk 3", "chunk", 3),
    ("--num-cpus 0.5", "num_cpus", 0.5),
    ("--num-gpus 1", "num_gpus", 1.0),
    ("--memory 2GiB", "memory", 2 * 2**30),
    ("--resources tpu=1,disk=0.5", "resources", {"tpu": 1.0, "disk": 0.5}),
    ("""--resources '{"tpu": 2}'""", "resources", {"tpu": 2.0}),
    ('--env A=1 --env "B=two words"', "env", {"A": "1", "B": "two words"}),
    ("--pip requests --pip 'rich>13'", "pip", ("requests", "rich>13")),
    ("--on worker-3", "on", "worker-3"),
    ("--bg", "background", True),
    ("--block", "background", False),
    ("--handle job", "handle", "job"),
    ("--timeout 2m", "timeout", 120.0),
    ("--retries -1", "retries", -1),
    ("--on-interrupt detach", "on_interrupt", "detach"),
    ("--on-error plain", "on_error", "plain"),
    ("--stream", "stream", True),
    ("--no-stream", "stream", False),
    ("--group order", "group", "order"),
    ("--progress-after 0", "progress_after", 0.0),
    ("--progress-after 1m", "progress_after", 60.0),
    ("--profile cpu", "profile", "cpu"),
    ("--max-output 10k", "max_output", 10_000),
    ("--view none", "view", "none"),
    ("--name 'my cell'", "name", "my cell"),
    ("--tag nightly", "tag", "nightly"),
    ("--dry-run", "dry_run", True),
]


@pytest.mark.parametrize(("line", "name", "value"), GIVEN)
def test_an_option_means_what_it_says(line: str, name: str, value: Any) -> None:
    assert parse(remote, line) == {name: value}


def test_every_option_is_tried_here() -> None:
    assert {name for _, name, _ in GIVEN} == {field.name for field in fields(CellOptions)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--tiemout 3", "--tiemout is not an option; did you mean --timeout?"),
        ("--num-cpu3 2", "did you mean --num-cpus?"),
        ("--zzzz", "%%remote? lists the options"),
        ("-x 1", "-x is not an option"),
        ("fit(x)", "code goes on the lines below"),
        ("--num-cpus many", "'many' is not a number of CPUs"),
        ("--num-cpus nan", "'nan' is not a number of CPUs"),
        ("--num-cpus -1", "'-1' is not a number of CPUs"),
        ("--chunk 0", "from 1 up"),
        ("--retries -2", "is not a number of retries"),
        ("--each 3", "is not NAME=EXPRESSION"),
        ("--each x=", "is not an expression"),
        ("--each x=1+", "is not an expression"),
        ("--each class=xs", "is not NAME=EXPRESSION"),
        ("-o 3x", "'3x' is not the name of a variable"),
        ("-i class", "'class' is not the name of a variable"),
        ("--handle a.b", "is not the name of a variable"),
        ("--memory lots", "is not a size"),
        ("--timeout soon", "is not a time"),
        ("--timeout 0", "is not a time"),
        ("--resources tpu", "is not resources"),
        ("--view picture", "invalid choice"),
        ("--group people", "invalid choice"),
        ("--profile gpu", "invalid choice"),
        ("--progress-after soon", "is not a time"),
        ("--env A", "is not NAME=VALUE"),
        ("--on-interrupt maybe", "invalid choice"),
        ("--out", "expected one argument"),
        ("--name 'open", "cannot be split into words"),
    ],
)
def test_a_mistake_is_one_usage_error_that_says_what_to_write(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(remote, line)
    assert said in str(caught.value)


@pytest.mark.parametrize("line", ["--each x=xs --refs --chunk 2", "--chunk 2", "--dry-run --bg"])
def test_options_that_contradict_each_other_are_refused(line: str) -> None:
    with pytest.raises(UsageError):
        options_of(parse(remote, line), {})


def test_what_is_not_given_comes_from_the_configuration_and_then_from_the_defaults() -> None:
    configured = {"num_cpus": 2.0, "background": True, "view": "none"}
    found = options_of(parse(remote, "--block --num-gpus 1"), configured)
    assert (found.num_cpus, found.background, found.view, found.num_gpus) == (2.0, False, "none", 1.0)
    assert found.max_fetch == DEFAULTS.max_fetch


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("2kB", 2000), ("2 KiB", 2048), ("1.5m", 1_500_000), ("3TiB", 3 * 2**40)])
def test_sizes_are_read_with_both_kinds_of_units(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("3", 3), ("0.5s", 0.5), ("2m", 120), ("1h", 3600)])
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds
