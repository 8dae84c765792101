"""The published lists of Caltech101; small ones of it and SUN397 are in test_sets.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from groco_cli.data.sources.transfer import TRANSFER_SETS, Failed, open_transfer_set
from groco_cli.errors import GrocoError

Meta = Callable[[str], Path]


def test_the_published_lists_of_caltech101_are_read_whole(layout, root: Path, meta: Meta):
    for part in ("train", "test"):
        layout.write(f"caltech101/{part}.txt", meta(f"caltech101-splits/{part}.txt").read_bytes())
    (root / "caltech101/101_ObjectCategories").mkdir()
    opened = open_transfer_set("caltech101", root)
    assert isinstance(opened, Failed)  # no picture is there, but all that are listed are asked for
    assert "2,416 of 2,416 listed pictures are missing" in opened.error.message
    dataset = TRANSFER_SETS["caltech101"].read(root)
    entry = TRANSFER_SETS["caltech101"]
    assert (len(dataset.train), len(dataset.test), len(dataset.train.classes)) == (entry.train, entry.test, 102)
    for part, source in (("train", dataset.train), ("test", dataset.test)):
        lines = [
            line.split() for line in meta(f"caltech101-splits/{part}.txt").read_text().splitlines() if line.strip()
        ]
        assert [str(path.relative_to(root / "caltech101/101_ObjectCategories")) for path in source.paths] == [
            name for name, _ in lines
        ]
        assert [int(number) for _, number in lines] == source.labels.tolist()  # the lists' numbers are in order of name


def test_a_line_that_names_no_picture_is_told_with_what_to_write(layout, root: Path):
    for part in ("train", "test"):
        layout.write(f"caltech101/{part}.txt", b"yin_yang/image_0059.jpg 101\nimage_0001.jpg 3\n")
    with pytest.raises(GrocoError, match=r"train\.txt, line 2: 'image_0001\.jpg 3' is no picture") as caught:
        TRANSFER_SETS["caltech101"].read(root)
    assert "CLASS/PICTURE.jpg" in caught.value.hint
