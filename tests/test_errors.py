from pathlib import Path

import pytest

from groco_cli.errors import GrocoError, UsageError, did_you_mean, first_line


@pytest.mark.parametrize(("kind", "exit_code"), [(GrocoError, 1), (UsageError, 2)])
def test_an_error_carries_its_message_hint_and_exit_code(kind: type[GrocoError], exit_code: int):
    error = kind("no folder x", "type y")
    assert (str(error), error.message, error.hint, error.exit_code) == (
        "no folder x",
        "no folder x",
        "type y",
        exit_code,
    )
    assert kind("no folder x").hint == ""


def test_a_wrong_use_is_caught_as_an_error_of_groco():
    assert issubclass(UsageError, GrocoError)


@pytest.mark.parametrize(
    ("said", "line"),
    [("one\ntwo", "one"), ("\n\n  one  \ntwo", "one"), ("", "RuntimeError"), (" \n ", "RuntimeError")],
)
def test_another_s_error_is_told_in_a_line_whatever_it_says(said: str, line: str):
    assert first_line(RuntimeError(said)) == line


def test_nowhere_is_a_line_taken_of_an_error_that_may_have_none():
    """`str(error).splitlines()[0]` fails on an empty message."""
    sources = sorted((Path(__file__).parents[1] / "groco_cli").rglob("*.py"))
    assert sources
    assert not [path for path in sources if "str(error).splitlines()[" in path.read_text(encoding="utf-8")]


def test_the_nearest_name_is_suggested_first():
    assert did_you_mean("cifar", ["digits", "cifar100", "cifar10"]) == "did you mean 'cifar10' or 'cifar100'?"


def test_at_most_three_names_are_suggested():
    assert did_you_mean("view", [f"view{i}" for i in range(9)]).count(" or ") == 2


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("imagenet", ["digits", "cifar10"]) == ""
    assert did_you_mean("imagenet", []) == ""


def test_choices_may_be_any_iterable():
    assert did_you_mean("digit", iter({"digits": 1})) == "did you mean 'digits'?"
