"""Intervals as they are typed, and when they are over."""

import pytest

from groco_cli.engine.every import Every
from groco_cli.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "count", "unit"),
    [
        ("1", 1, "epochs"),
        ("20 epochs", 20, "epochs"),
        ("2ep", 2, "epochs"),
        ("500steps", 500, "steps"),
        ("500 Steps", 500, "steps"),
        ("1step", 1, "steps"),
        ("10min", 10, "minutes"),
        (" 10 minutes ", 10, "minutes"),
        ("2h", 120, "minutes"),
    ],
)
def test_an_interval_is_a_number_and_a_unit_epochs_where_there_is_none(typed, count, unit):
    assert Every.parse(typed, "--save-every") == Every(count, unit)


@pytest.mark.parametrize("typed", ["", "0", "-1", "1.5", "steps", "90s", "10 fortnights", "1 2", "1e3", "٣"])
def test_anything_else_is_refused_and_says_what_to_type(typed):
    with pytest.raises(UsageError, match="--save-every") as caught:
        Every.parse(typed, "--save-every")
    assert "500steps" in caught.value.hint


def test_several_intervals_have_commas_between_them():
    assert Every.parse_several("1, 30min", "--save-every") == (Every(1, "epochs"), Every(30, "minutes"))
    assert Every.parse_several("500steps", "--save-every") == (Every(500, "steps"),)
    for typed in ("1,", ",", "1 30min", "1,,2h"):
        with pytest.raises(UsageError, match="--save-every") as caught:
            Every.parse_several(typed, "--save-every")
        assert "1,30min" in caught.value.hint


def due_steps(every: Every, per_epoch: int, total: int) -> list[int]:
    return [step for step in range(1, total + 1) if every.due(step, per_epoch, 0.0)]


def test_steps_and_epochs_are_counted_from_the_run_s_beginning_wherever_it_was_resumed():
    assert due_steps(Every(4, "steps"), 3, 12) == [4, 8, 12]
    assert due_steps(Every(2, "epochs"), 3, 12) == [6, 12]


def test_minutes_are_counted_from_the_last_time():
    every = Every(10, "minutes")
    assert [every.due(7, 3, seconds) for seconds in (0.0, 599.9, 600.0, 6000.0)] == [False, False, True, True]
