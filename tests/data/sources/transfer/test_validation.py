"""Which training pictures of the small copies are for validation, and what happens without a list of them."""

from pathlib import Path

import pytest

from groco_cli.data.sources.transfer import TransferSet, open_transfer_set

LISTS = {
    "aircraft": ("fgvc-aircraft-2013b/data/images_variant_val.txt", "0100004 727-200\n0100001 A300 B4\n", [0, 2]),
    "voc2007": ("VOCdevkit/VOC2007/ImageSets/Main/val.txt", "000007\n", [1]),
}


def opened(name: str, root: Path) -> TransferSet:
    found = open_transfer_set(name, root)
    assert isinstance(found, TransferSet), found
    return found


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", ["dtd", "flowers"])
def test_sets_that_are_put_together_of_two_parts_know_which_is_which(layout, small, root: Path, name: str):
    small[name][0](layout)
    assert opened(name, root).validation.tolist() == [2, 3]


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", LISTS)
def test_a_list_beside_the_set_says_it(layout, small, root: Path, name: str):
    path, text, rows = LISTS[name]
    small[name][0](layout)
    assert opened(name, root).validation is None
    layout.write(path, text)
    assert opened(name, root).validation.tolist() == rows
    layout.write(path, "another\n")
    assert opened(name, root).validation is None


@pytest.mark.usefixtures("trusting")
def test_a_set_without_a_validation_split_has_none(layout, small, root: Path):
    small["pets"][0](layout)
    assert opened("pets", root).validation is None


@pytest.mark.usefixtures("trusting")
def test_a_list_that_cannot_be_read_fails_the_set_in_a_line(layout, small, root: Path):
    small["voc2007"][0](layout)
    layout.write("VOCdevkit/VOC2007/ImageSets/Main/val.txt", b"\xff\xfe\xff")
    failed = open_transfer_set("voc2007", root)
    assert "val.txt: cannot be read" in failed.error.message
