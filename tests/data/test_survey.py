"""What is counted and measured, against Pillow and plain loops; every broken file found, none lost."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from groco_cli.data.digits import digits
from groco_cli.data.sources import FileSource, MemorySource, evenly_spread, open_dataset
from groco_cli.data.survey import QUANTILES, Broken, Survey, survey


def files_of(folder: Path) -> FileSource:
    """All files of a folder, whatever they are."""
    return FileSource(tuple(sorted(folder.iterdir())), None, ())


@pytest.mark.parametrize("workers", [0, 2])
def test_photographs_are_measured_as_pillow_measures_them(imagenet_jpegs, workers):
    source = files_of(imagenet_jpegs)
    counted = []
    found = survey(source, workers=workers, advance=counted.append)
    opened = [ImageOps.exif_transpose(Image.open(path)) for path in source.paths]
    assert found.widths.tolist() == [image.width for image in opened]
    assert found.heights.tolist() == [image.height for image in opened]
    assert found.file_sizes.tolist() == [path.stat().st_size for path in source.paths]
    assert found.formats == {"JPEG": 250}
    assert (found.images, found.decoded, found.broken) == (250, 250, ())
    assert sum(counted) == 250
    assert len(counted) > 1


@pytest.fixture
def damaged(picture_folder) -> FileSource:
    """150 pictures; 20 cut off, 100 empty, 149 a text, 60 lying on its side, 70 a PNG called .jpg."""
    folder = picture_folder(*(f"{i:03}.jpg" for i in range(150)), size=(40, 30))
    paths = sorted(folder.iterdir())
    paths[20].write_bytes(paths[20].read_bytes()[:-600])
    paths[100].write_bytes(b"")
    paths[149].write_text("no picture")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 30)).save(paths[60], exif=turned)
    Image.new("L", (40, 30)).save(paths[70], "PNG")
    return files_of(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_broken_file_is_found_in_order_and_none_is_lost(damaged, workers):
    found = survey(damaged, workers=workers)
    assert [(one.number, one.name) for one in found.broken] == [(i, str(damaged.paths[i])) for i in (20, 100, 149)]
    assert "truncated" in found.broken[0].reason
    assert {one.reason for one in found.broken[1:]} == {"not an image"}
    assert found.formats == {"JPEG": 147, "PNG": 1}
    assert len(found.widths) == len(found.heights) == len(found.file_sizes) == 148
    assert Counter(zip(found.widths.tolist(), found.heights.tolist(), strict=True)) == {(40, 30): 147, (30, 40): 1}


def test_a_file_that_is_cut_off_is_only_found_by_decoding_it(damaged):
    heads = survey(damaged, decode=0)
    assert ([one.number for one in heads.broken], heads.decoded) == ([100, 149], 0)
    some = survey(damaged, decode=7)
    assert 20 not in evenly_spread(150, 7)
    assert ([one.number for one in some.broken], some.decoded) == ([100, 149], 7)
    among = survey(damaged, decode=15)
    assert 20 in evenly_spread(150, 15)
    assert ([one.number for one in among.broken], among.decoded) == ([20, 100, 149], 15)
    assert survey(damaged, decode=10_000).decoded == 150


def test_nothing_but_broken_files_is_no_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    found = survey(files_of(tmp_path))
    assert found.broken == (Broken(0, str(tmp_path / "a.jpg"), "not an image"),)
    assert found.quantiles() == {}


def test_pictures_in_memory_have_sizes_and_no_files():
    pictures, labels = digits(train=False)
    found = survey(MemorySource(pictures, labels, tuple("0123456789")))
    assert (found.images, found.decoded, found.formats, found.file_sizes) == (360, 360, {}, None)
    assert found.quantiles()["height"] == dict.fromkeys(QUANTILES, 32)
    assert found.class_sizes.tolist() == [Counter(labels.tolist())[label] for label in range(10)]


def test_classes_without_an_image_are_counted(picture_folder):
    folder = picture_folder(*(f"{i}.png" for i in range(5)))
    source = FileSource(tuple(sorted(folder.iterdir())), torch.tensor([3, 0, 3, 3, 0]), ("a", "b", "c", "d", "e"))
    found = survey(source)
    assert found.class_sizes.tolist() == [2, 0, 0, 3, 0]
    assert found.classes == ("a", "b", "c", "d", "e")


def test_shards_are_surveyed_as_the_files_in_them(imagenet_shards, imagenet_jpegs, tmp_path):
    shard = open_dataset(str(imagenet_shards / "imagenet-sample-000000.tar"), tmp_path).train
    found, files = survey(shard), survey(files_of(imagenet_jpegs))
    assert sorted(found.file_sizes.tolist()) == sorted(files.file_sizes.tolist())
    assert found.quantiles()["width"] == files.quantiles()["width"]
    assert found.class_sizes.sum() == found.images == 250


@given(st.lists(st.integers(0, 100), min_size=1))
def test_quantiles_are_values_with_so_many_below(values):
    array = np.array(values)
    found = Survey(
        images=len(values),
        classes=(),
        class_sizes=np.empty(0, np.int64),
        heights=array,
        widths=array,
        file_sizes=None,
        formats={},
        decoded=0,
        broken=(),
    ).quantiles()
    assert found.keys() == {"width", "height"}
    assert list(found["width"].values()) == sorted(found["width"].values())
    assert (found["width"]["min"], found["width"]["max"]) == (min(values), max(values))
    for name, share in QUANTILES.items():
        value = found["width"][name]
        assert value in values
        assert sum(v < value for v in values) <= share * len(values) <= sum(v <= value for v in values)
