"""Shards written from any source give the same pictures and labels back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import webdataset

from groco_cli.data.digits import digits
from groco_cli.data.shard_writer import write_shards
from groco_cli.data.sources import FileSource, MemorySource, Source, first, open_dataset
from groco_cli.errors import GrocoError, UsageError


def reopened(folder: Path, tmp_path: Path) -> Source:
    return open_dataset(str(folder), tmp_path / "root").train


def assert_same(left: Source, right: Source) -> None:
    assert (len(left), left.classes) == (len(right), right.classes)
    assert (left.labels is None) == (right.labels is None)
    assert left.labels is None or torch.equal(left.labels, right.labels)
    for number in range(len(left)):
        assert torch.equal(left.load(number), right.load(number))


def test_files_are_copied_byte_by_byte(imagenet_jpegs: Path, tmp_path: Path):
    source = first(open_dataset(str(imagenet_jpegs), tmp_path).train, 25)
    paths = write_shards(source, tmp_path / "shards", 10)
    assert [path.name for path in paths] == ["000000.tar", "000001.tar", "000002.tar"]
    written = reopened(tmp_path / "shards", tmp_path)
    assert_same(written, source)
    for number, path in enumerate(source.paths):
        assert written.open(number).content == path.read_bytes()
    counts = [len(list(webdataset.WebDataset(str(path), shardshuffle=False))) for path in paths]
    assert counts == [10, 10, 5]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_pictures_of_every_kind_come_back(picture_folder: Callable[..., Path], tmp_path: Path, ending: str):
    folder = picture_folder(*(f"{c}/{i}.{ending}" for c in ("dog", "cat, large") for i in range(3)))
    source = open_dataset(str(folder), tmp_path).train
    write_shards(source, tmp_path / "shards", 4)
    assert_same(reopened(tmp_path / "shards", tmp_path), source)


def test_pictures_in_memory_come_back(tmp_path: Path):
    pictures, labels = digits(train=False)
    source = MemorySource(pictures[:50], labels[:50], tuple(f"digit {c}" for c in range(10)))
    write_shards(source, tmp_path / "shards")
    assert_same(reopened(tmp_path / "shards", tmp_path), source)


def test_shards_may_be_written_anew_from_shards(imagenet_shards: Path, tmp_path: Path):
    source = open_dataset(str(imagenet_shards / "groco-official-layout-16.tar"), tmp_path / "root").train
    write_shards(source, tmp_path / "shards", 5)
    assert_same(reopened(tmp_path / "shards", tmp_path), source)


def test_the_same_images_give_the_same_bytes(picture_folder: Callable[..., Path], tmp_path: Path):
    source = open_dataset(str(picture_folder("a/1.png", "b/2.jpg")), tmp_path).train
    (one,), (other,) = (write_shards(source, tmp_path / name) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_bad_image_leaves_no_half_shard(picture_folder: Callable[..., Path], tmp_path: Path):
    folder = picture_folder("1.png", "2.png", "3.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:100])
    source = FileSource(tuple(sorted(folder.iterdir())), None, ())
    with pytest.raises(GrocoError, match=r"cannot decode .*3\.png"):
        write_shards(source, tmp_path / "shards", 2)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["000000.tar"]
    with pytest.raises(UsageError, match="holds shards already"):
        write_shards(source, tmp_path / "shards", 2)


def test_names_that_do_not_fit_the_labels_are_refused(tmp_path: Path):
    source = MemorySource(*digits(train=False), tuple("0123456789"))
    write_shards(first(source, 100), tmp_path / "shards")
    (tmp_path / "shards/classes.txt").write_text("one\ntwo\n")
    with pytest.raises(GrocoError, match="2 names, but labels up to 9"):
        reopened(tmp_path / "shards", tmp_path)


def test_no_image_a_shard_is_refused(tmp_path: Path):
    with pytest.raises(UsageError):
        write_shards(MemorySource(*digits(train=False), ()), tmp_path, 0)
