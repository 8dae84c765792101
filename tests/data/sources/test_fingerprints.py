"""What tells images apart wherever they lie, and whether they are still there."""

import shutil
from pathlib import Path

import pytest
import torch

from groco_cli.data.sources import FileSource, MemorySource, Source, open_dataset
from groco_cli.data.sources.fingerprints import common_folder


def shards(write_shard, folder: str, *labels: list[int]) -> Source:
    written = [write_shard(f"{folder}/{number}.tar", some, start=5 * number) for number, some in enumerate(labels)]
    return open_dataset(str(written[0].parent), written[0].parent / "cache").train


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["/a/b/1", "/a/b/2"], "/a/b/"),
        (["/a/b1/1", "/a/b2/1"], "/a/"),
        (["/a/b/1"], "/a/b/"),
        (["a/1", "a/b/1"], "a/"),
        (["/a/1", "b/1"], ""),
        (["1", "2"], ""),
        (["/1", "/2"], "/"),
    ],
)
def test_the_folder_that_holds_all_is_found(paths: list[str], folder: str):
    assert common_folder([Path(path) for path in paths]) == folder


def test_an_inventory_of_files_is_of_their_names_and_order_wherever_they_lie(picture_folder, tmp_path: Path):
    folder = picture_folder("a/1.png", "a/2.png", "b/1.png")
    source = open_dataset(str(folder), tmp_path).train
    found = source.inventory()
    shutil.copytree(folder, tmp_path / "scratch/elsewhere")
    (tmp_path / "scratch/elsewhere/a/1.png").write_bytes((folder / "a/2.png").read_bytes())  # it is not opened
    assert open_dataset(str(tmp_path / "scratch/elsewhere"), tmp_path).train.inventory() == found
    (folder / "a/2.png").rename(folder / "a/3.png")
    others = [source.subset(torch.tensor(rows)) for rows in ([1, 0, 2], [0, 1])]
    others.append(open_dataset(str(folder), tmp_path).train)
    assert len({found, *(other.inventory() for other in others)}) == 4


def test_an_inventory_of_shards_is_of_their_keys_in_each(write_shard):
    found = shards(write_shard, "one", [0, 1], [2]).inventory()
    assert shards(write_shard, "two", [0, 1], [2]).inventory() == found
    assert shards(write_shard, "three", [1, 0], [2]).inventory() == found
    other = shards(write_shard, "four", [0], [1, 2])
    picked = shards(write_shard, "five", [0, 1], [2]).subset(torch.tensor([0, 2, 1]))
    assert len({found, other.inventory(), picked.inventory()}) == 3


def test_an_inventory_in_memory_is_of_the_set_s_name_and_numbers():
    images = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    source = MemorySource(images, None, (), "digits")
    assert source.inventory() == MemorySource(images + 1, None, (), "digits").inventory()
    others = [MemorySource(images, None, (), "cifar10"), source.subset(torch.tensor([0, 1]))]
    others.append(source.subset(torch.tensor([1, 0])))
    assert len({source.inventory(), *(other.inventory() for other in others)}) == 4


@pytest.mark.parametrize("how", ["moved", "unmounted"])
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_images_are_lost_where_their_folder_is_moved_or_empty_and_not_where_one_is_missing(
    picture_folder, write_shard, tmp_path: Path, kind: str, how: str
):
    if kind == "files":
        source: Source = open_dataset(str(picture_folder("a/1.png", "a/2.png", "b/1.png")), tmp_path).train
    else:
        source = shards(write_shard, "set", [0, 1], [2])
    assert isinstance(source, FileSource) or kind == "shards"
    folder = Path(common_folder(source.paths))
    source.paths[0].unlink()
    assert source.lost() == ""
    folder.rename(tmp_path / "away")
    if how == "unmounted":
        folder.mkdir()
    assert source.lost() == f"{folder}/"


def test_what_lies_in_memory_is_never_lost():
    assert MemorySource(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), None, ()).lost() == ""
