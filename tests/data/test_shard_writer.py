"""Shards written from any source give the same pictures and labels back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import webdataset
from PIL import Image

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


@pytest.fixture
def with_bad_ones(picture_folder: Callable[..., Path]) -> FileSource:
    """Seven pictures of two classes, of which the first, the fourth and the last cannot be decoded."""
    folder = picture_folder(*(f"{i}.png" for i in range(7)))
    paths = tuple(sorted(folder.iterdir()))
    for bad in (0, 3, 6):
        paths[bad].write_bytes(paths[bad].read_bytes()[:50])
    return FileSource(paths, torch.tensor([0, 1, 0, 1, 1, 1, 0]), ("a", "b"))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_left_out_and_named_where_asked(
    with_bad_ones: FileSource, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
):
    counted: list[int] = []
    out = tmp_path / "shards"
    paths = write_shards(with_bad_ones, out, 2, on_bad_image="skip", workers=workers, advance=counted.append)
    assert len(paths) == 2
    assert sum(counted) == 7
    assert_same(reopened(out, tmp_path), with_bad_ones.subset(torch.tensor([1, 2, 4, 5])))
    said = capsys.readouterr().err
    assert said.count("left out") == 3
    assert all(str(with_bad_ones.paths[bad]) in said for bad in (0, 3, 6))


def test_workers_write_the_same_bytes(imagenet_jpegs: Path, tmp_path: Path):
    source = first(open_dataset(str(imagenet_jpegs), tmp_path).train, 70)
    alone, together = (write_shards(source, tmp_path / str(n), 30, workers=n) for n in (0, 2))
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]


def test_a_jpeg_with_further_pictures_behind_the_first_is_copied(tmp_path: Path):
    """As some phones write them; Pillow calls them MPO."""
    path = tmp_path / "phone.jpg"
    one, other = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    one.save(path, "MPO", save_all=True, append_images=[other])
    assert Image.open(path).format == "MPO"
    source = FileSource((path,), None, ())
    write_shards(source, tmp_path / "shards")
    assert reopened(tmp_path / "shards", tmp_path).open(0).content == path.read_bytes()
    assert_same(reopened(tmp_path / "shards", tmp_path), source)
