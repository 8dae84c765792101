"""Labels as numbers or names, and one numbering for both parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from groco_cli.data.sources import FileSource
from groco_cli.data.sources.labels import aligned, number_classes
from groco_cli.errors import GrocoError


def numbered(numbers: list[int], names: list[str] | None = None):
    given = np.array(names or [""] * len(numbers))
    return number_classes(np.array(numbers), given, data="set", name_of=lambda i: f"image {i}")


def source(labels: list[int] | None, *classes: str) -> FileSource:
    count = 3 if labels is None else len(labels)
    return FileSource((Path("x"),) * count, None if labels is None else torch.tensor(labels), classes)


def test_names_are_numbered_in_sorted_order():
    labels, classes = numbered([-1] * 4, ["dog", "cat", "dog", "emu"])
    assert (labels.tolist(), labels.dtype, classes) == ([1, 0, 1, 2], torch.int64, ("cat", "dog", "emu"))


def test_numbers_are_taken_as_they_stand():
    labels, classes = numbered([3, 0, 3])
    assert (labels.tolist(), classes) == ([3, 0, 3], ("0", "1", "2", "3"))


def test_numbers_may_bring_their_names():
    assert numbered([2, 0, 2], ["n02", "n00", "n02"])[1] == ("n00", "1", "n02")


def test_without_any_label_there_are_none():
    assert numbered([-1, -1]) == (None, ())


@pytest.mark.parametrize(
    ("numbers", "names", "told"),
    [
        ([0, -1, 2, -1], None, "2 (image 1, image 3) of 4 have no label"),
        ([0, -1], ["", "cat"], "1 (image 1) have a class name"),
        ([0, 10**9], None, "1 (image 1) have a label of a million or more"),
        ([1, 1], ["cat", "dog"], "class 1 is called both cat and dog"),
        ([-1] * 6, ["a", *[""] * 5], "5 (image 1, image 2, image 3, …) of 6 have no label"),
    ],
)
def test_labels_that_do_not_fit_together_are_refused(numbers: list[int], names: list[str] | None, told: str):
    with pytest.raises(GrocoError) as caught:
        numbered(numbers, names)
    assert told in caught.value.message


def test_queries_take_the_banks_numbers():
    queries = aligned(source([0, 1, 0], "cat", "emu"), source([0, 1, 2], "bee", "cat", "emu"), "set")
    assert queries.labels.tolist() == [1, 2, 1]
    assert queries.classes == ("bee", "cat", "emu")


def test_only_classes_that_occur_have_to_be_known():
    bank = source([0, 2, 0], "n00", "1", "n02")
    assert aligned(source([2, 2, 2], "0", "1", "n02"), bank, "set").labels.tolist() == [2, 2, 2]
    with pytest.raises(GrocoError, match="class 0 not among"):
        aligned(source([2, 0, 2], "0", "1", "n02"), bank, "set")


def test_unlabelled_parts_are_left_alone():
    for queries, bank in ((source(None), source([0], "a")), (source([0], "b"), source(None))):
        assert aligned(queries, bank, "set") is queries
