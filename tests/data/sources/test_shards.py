"""Shards by pattern and by folder: every sample once, the same whatever reads it; real shards pixel by pixel."""

import gzip
import json
import multiprocessing
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from groco_cli.data.decoding import BadImageError, decode
from groco_cli.data.loader import ViewLoader, evaluation_batches
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import Dataset, ShardSource
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.data.views import AUGMENTATIONS
from groco_cli.errors import GrocoError

CPU = torch.device("cpu")
PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def loader_of(source: ShardSource, views, batch_size: int, workers: int) -> ViewLoader:
    order = shuffled(len(source), 0)
    return ViewLoader(
        source,
        views,
        batch_size=batch_size,
        order=order,
        normalisation=PLAIN,
        seed=0,
        device=CPU,
        workers=workers,
    )


def keys(source: ShardSource) -> list[str]:
    return [source.name_of(i).rpartition(":")[2] for i in range(len(source))]


def places(folder: Path, *names: str) -> str:
    return "::".join(str(folder / name) for name in names)


def test_patterns_are_expanded_in_their_order(opened, write_shard, tmp_path: Path):
    for number in range(4):
        write_shard(f"s-{number:03}.tar", [number], start=number)
    whole = ["0000", "0001", "0002", "0003"]
    for names in (["s-{000..003}.tar"], ["s-00[0-3].tar"], ["s-00{0,1}.tar", "s-00{2..3}.tar"], ["*.tar"]):
        dataset = opened(places(tmp_path, *names))
        assert keys(dataset.train) == whole
        assert dataset.train.labels.tolist() == [0, 1, 2, 3]
        assert (dataset.train.classes, dataset.test) == (("0", "1", "2", "3"), None)
    assert keys(opened(places(tmp_path, "s-003.tar", "s-000.tar")).train) == ["0003", "0000"]


def test_pictures_and_labels_are_those_of_the_members(opened, write_shard, drawn, tmp_path: Path):
    write_shard("s-0.tar", [7, 3, 3], start=0)
    write_shard("s-1.tar", [1, 7], start=3)
    source = opened(tmp_path / "s-{0,1}.tar").train
    assert isinstance(source, ShardSource)
    assert source.labels.dtype == torch.int64
    assert source.labels.tolist() == [7, 3, 3, 1, 7]
    for number in range(5):
        np.testing.assert_array_equal(source.load(number).permute(1, 2, 0), drawn(number))
    assert source.name_of(3) == f"{tmp_path / 's-1.tar'}:0003"


def test_a_fingerprint_changes_with_the_shards_and_the_samples_taken(opened, write_shard, tmp_path: Path):
    shard = write_shard("s.tar", [5, 6, 7, 8])
    source = opened(shard).train
    found = [source.fingerprint(), source.subset(torch.tensor([0, 1, 3, 2])).fingerprint()]
    assert opened(shard).train.fingerprint() == found[0]
    os.utime(shard, ns=(0, 0))
    found.append(opened(shard).train.fingerprint())
    assert len(set(found)) == 3


def test_a_subset_keeps_order_labels_and_names(opened, write_shard, drawn, tmp_path: Path):
    source = opened(write_shard("s.tar", [5, 6, 7, 8])).train
    part = source.subset(torch.tensor([3, 1, 1])).subset(torch.tensor([0, 2]))
    assert (len(part), part.labels.tolist(), keys(part)) == (2, [8, 6], ["0003", "0001"])
    np.testing.assert_array_equal(part.load(1).permute(1, 2, 0), drawn(1))
    assert part.classes == source.classes


def test_samples_of_the_same_key_in_two_shards_are_two(opened, write_shard, tmp_path: Path):
    write_shard("a.tar", [0, 1])
    write_shard("b.tar", [1, 1])
    assert len(opened(tmp_path / "{a,b}.tar").train) == 4


def test_unlabelled_shards_have_no_labels(opened, write_tar, picture):
    source = opened(write_tar("s.tar", {"0.png": picture(), "1.jpg": picture(1, "jpeg")})).train
    assert (source.labels, source.classes) == (None, ())


def test_named_classes_are_numbered_in_sorted_order(opened, write_tar, picture):
    members = {
        f"{i}.{kind}": content
        for i, name in enumerate(["dog", "cat", "dog"])
        for kind, content in (("png", picture(i)), ("json", json.dumps({"label": name}).encode()))
    }
    source = opened(write_tar("s.tar", members)).train
    assert (source.labels.tolist(), source.classes) == ([1, 0, 1], ("cat", "dog"))


def test_labels_on_some_samples_only_are_refused(refused, write_shard, write_tar, picture, tmp_path: Path):
    write_shard("s-0.tar", [0, 1])
    write_tar("s-1.tar", {"a.png": picture(), "b.png": picture(), "b.cls": b"1"})
    message = refused(tmp_path / "s-{0,1}.tar").message
    assert f"1 ({tmp_path / 's-1.tar'}:a) of 4 have no label" in message


def both_ways(tmp_path: Path) -> list[str]:
    return [str(tmp_path), places(tmp_path, "train/*.tar") + "::val=" + places(tmp_path, "val/*.tar")]


def test_training_and_held_out_shards_are_told_apart(opened, write_shard, tmp_path: Path):
    write_shard("train/1.tar", [0, 1], start=2)
    write_shard("train/0.tar", [1, 0])
    write_shard("val/0.tar", [1], start=9)
    for data in both_ways(tmp_path):
        dataset = opened(data)
        assert (dataset.name, keys(dataset.train), keys(dataset.test)) == (
            data,
            ["0000", "0001", "0002", "0003"],
            ["0009"],
        )
        assert dataset.test.classes == dataset.train.classes == ("0", "1")


def test_held_out_shards_of_one_folder_are_known_by_their_names(opened, write_shard, tmp_path: Path, capsys):
    for number, name in enumerate(["set-train-0.tar", "set-validation-0.tar", "set-train-1.tar", "set_test.tar"]):
        write_shard(f"f/{name}", [0], start=number)
    (tmp_path / "f/classes.txt").write_text("cat\n")
    dataset = opened(tmp_path / "f")
    assert keys(dataset.train) == ["0000", "0002"]
    assert keys(dataset.test) == ["0003"]  # test comes before validation, as for folders
    assert "the shards of validation are not used" in capsys.readouterr().err
    assert keys(opened(tmp_path / "f/*.tar").train) == ["0000", "0002", "0001", "0003"], (
        "what is typed is taken as it is"
    )


def test_a_folder_of_nothing_but_held_out_shards_is_trained_on(opened, write_shard, tmp_path: Path):
    write_shard("f/val-0.tar", [0])
    dataset = opened(tmp_path / "f")
    assert (len(dataset.train), dataset.test) == (1, None)


def test_a_held_out_class_that_training_lacks_is_told(refused, write_shard, tmp_path: Path):
    write_shard("train/0.tar", [0, 1])
    write_shard("val/0.tar", [5])
    for data in both_ways(tmp_path):
        assert "class 5 not among" in refused(data).message


def test_compressed_shards_are_told_to_decompress(refused, write_shard, tmp_path: Path):
    plain = write_shard("f/a.tar", [0])
    (tmp_path / "f/a.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    for data in (tmp_path / "f", tmp_path / "f/*.tar.gz", tmp_path / "f/a.tar.gz"):
        assert "compressed" in refused(data).message
        assert "decompress" in refused(data).hint


def test_an_empty_shard_among_others_is_told_by_name(refused, write_shard, tmp_path: Path):
    write_shard("s-0.tar", [0])
    (tmp_path / "s-1.tar").touch()
    assert f"{tmp_path / 's-1.tar'}: the shard is empty" in refused(tmp_path / "s-{0,1}.tar").message


DAMAGE = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "zero bytes": lambda whole: b"",
    "a text": lambda whole: b"this is no picture\n",
    "zeros": lambda whole: bytes(1000),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_ends_the_epoch_with_shard_and_key(opened, write_tar, picture, damage: str, workers: int):
    members = {f"{i}.jpg": picture(i, "jpeg") for i in range(4)}
    members["2.jpg"] = DAMAGE[damage](members["2.jpg"])
    path = write_tar("s.tar", members)
    source = opened(path).train
    with pytest.raises(BadImageError, match=f"cannot decode {path}:2: ."):
        source.load(2)
    views = AUGMENTATIONS["small"](2, 0, 8, 8)
    loader = loader_of(source, views, 4, workers)
    with pytest.raises(GrocoError, match=f"cannot decode {path}:2: ."):
        list(loader.epoch(0))


def test_a_decompression_bomb_is_not_decoded(opened, write_shard, monkeypatch: pytest.MonkeyPatch):
    source = opened(write_shard("s.tar", [0])).train
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 20)
    with pytest.raises(BadImageError, match=r"s\.tar:0000: .*bomb"):
        source.load(0)


def test_shards_without_a_decodable_picture_are_told(refused, write_tar):
    assert "no decodable image among the first 2" in refused(write_tar("s.tar", {"0.jpg": b"x", "1.jpg": b"y"})).message


def test_a_shard_that_went_away_or_shrank_is_told_by_name(opened, write_shard):
    path = write_shard("s.tar", [0, 1])
    source = opened(path).train
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(BadImageError, match=r"s\.tar:0001: the shard ends before it"):
        source.load(1)
    path.unlink()
    with pytest.raises(BadImageError, match=r"s\.tar:0001: No such file"):
        source.load(1)


@pytest.fixture
def many(opened, write_shard, tmp_path: Path) -> Dataset:
    """13 samples in 4 shards."""
    for shard, (start, end) in enumerate([(0, 5), (5, 6), (6, 10), (10, 13)]):
        write_shard(f"s-{shard}.tar", list(range(start, end)), start=start)
    return opened(tmp_path / "s-{0..3}.tar")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_show_every_sample_once_in_order(many: Dataset, drawn, workers: int):
    transform = EvaluationTransform(resize=6, crop=6, normalisation=PLAIN)
    batches = evaluation_batches(many.train, transform, batch_size=4, device=CPU, workers=workers)
    shown = torch.cat([images for _, images in batches])
    expected = np.stack([drawn(i)[:, 1:7].transpose(2, 0, 1) for i in range(13)])
    np.testing.assert_array_equal((shown * 255).round().numpy(), expected)


def test_an_epoch_has_every_sample_once_whatever_the_workers(many: Dataset):
    views = AUGMENTATIONS["small"](2, 0, 8, 8)
    epochs = []
    for workers in (0, 2):
        loader = loader_of(many.train, views, 6, workers)
        assert len(loader) == 2
        epochs.append([view for batch in loader.epoch(1) for view in batch])
    assert len(epochs[0]) == 4
    for alone, shared in zip(*epochs, strict=True):
        torch.testing.assert_close(alone, shared, rtol=0, atol=0)


def _loaded(source: ShardSource) -> list[torch.Tensor]:
    return [source.load(i).clone() for i in range(len(source))]


def test_a_source_may_be_sent_to_another_process(many: Dataset):
    read = _loaded(many.train)  # whatever it may have opened by now must not go along
    copy = pickle.loads(pickle.dumps(many.train))  # noqa: S301 (our own)
    assert all(map(torch.equal, _loaded(copy), read))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(_loaded, [many.train] * 4):
            assert all(map(torch.equal, found, read))


@pytest.mark.parametrize(
    ("shard", "ending", "count"),
    [("imagenet-sample-000000", ".jpg", 250), ("groco-official-layout-16", ".image.jpg", 16)],
)
def test_real_shards_give_every_picture_as_its_extracted_file_does(
    opened, imagenet_shards: Path, tmp_path: Path, shard: str, ending: str, count: int
):
    path = imagenet_shards / f"{shard}.tar"
    source = opened(path).train
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "files", filter="data")
    extracted = sorted((tmp_path / "files").glob(f"*{ending}"))
    assert len(source) == len(extracted) == count
    assert sorted(keys(source)) == [file.name.removesuffix(ending) for file in extracted]
    number_of = {
        wnid: number for wnid, (number, _) in json.loads((imagenet_shards / "classes.json").read_text()).items()
    }
    for i, key in enumerate(keys(source)):
        file = tmp_path / "files" / f"{key}{ending}"
        assert source.open(i).content == file.read_bytes()
        assert torch.equal(source.load(i), decode(file))
        assert int(source.labels[i]) == number_of[key.partition("_")[0]]
        if ending == ".image.jpg":
            assert source.classes[source.labels[i]] == key.partition("_")[0]
