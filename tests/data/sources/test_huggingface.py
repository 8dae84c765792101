"""Folders that Hugging Face's `datasets` wrote."""

import io
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from groco_cli.data.decoding import BadImageError, decode
from groco_cli.data.loader import evaluation_batches
from groco_cli.data.sources import open_dataset
from groco_cli.data.sources.huggingface import HuggingFaceSource
from groco_cli.data.transforms import EvaluationTransform, Normalisation

datasets = pytest.importorskip("datasets", reason="no package datasets: pip install 'groco[hf]'")


@pytest.fixture
def rows(picture: Callable[..., bytes]):
    """Makes rows of pictures, each with a label: `rows([0, 1])`; `column=` and `names=` as given."""

    def make(labels: list, *, column: str = "image", names: tuple[str, ...] = ("cat", "dog"), start: int = 0, **more):
        pictures = [{"bytes": picture(start + i), "path": f"{i}.png"} for i in range(len(labels))]
        features = {
            column: datasets.Image(),
            "label": datasets.ClassLabel(names=list(names)),
            "text": datasets.Value("string"),
        }
        columns = {column: pictures, "label": labels, "text": ["x"] * len(labels)}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return make


def test_a_set_without_splits_is_all_for_training(opened, rows, drawn, tmp_path: Path):
    rows([1, 0, 1], column="picture").save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path / "set")
    source = dataset.train
    assert (len(source), dataset.test, source.classes) == (3, None, ("cat", "dog"))
    assert source.labels.tolist() == [1, 0, 1]
    assert source.labels.dtype == torch.int64
    for number in range(3):
        np.testing.assert_array_equal(source.load(number).permute(1, 2, 0), drawn(number))
    assert source.name_of(2) == f"{tmp_path / 'set'} train 2"


def test_splits_make_two_parts(opened, rows, tmp_path: Path):
    parts = {"train": rows([0, 1]), "validation": rows([1], start=2), "unused": rows([0])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path / "set")
    assert (len(dataset.train), len(dataset.test)) == (2, 1)
    assert dataset.test.labels.tolist() == [1]


def test_pictures_are_decoded_from_the_bytes_as_they_were_stored(opened, imagenet_jpegs: Path, tmp_path: Path):
    files = sorted(imagenet_jpegs.iterdir())[:5]
    made = datasets.Dataset.from_dict({"image": [str(file) for file in files]}).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set").train
    assert source.labels is None
    for number, file in enumerate(files):
        assert torch.equal(source.load(number), decode(file))


def test_a_subset_keeps_order_labels_and_names(opened, rows, drawn, tmp_path: Path):
    rows([0, 1, 1, 0]).save_to_disk(tmp_path / "set")
    part = opened(tmp_path / "set").train.subset(torch.tensor([3, 1, 1])).subset(torch.tensor([0, 2]))
    assert (len(part), part.labels.tolist(), part.name_of(1)) == (2, [0, 1], f"{tmp_path / 'set'} train 1")
    np.testing.assert_array_equal(part.load(0).permute(1, 2, 0), drawn(3))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_show_every_picture_once_in_order(opened, rows, drawn, tmp_path: Path, workers: int):
    rows([0] * 7).save_to_disk(tmp_path / "set")
    transform = EvaluationTransform(resize=6, crop=6, normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3))
    source = opened(tmp_path / "set").train
    batches = evaluation_batches(source, transform, batch_size=3, device=torch.device("cpu"), workers=workers)
    shown = torch.cat([images for _, images in batches])
    expected = np.stack([drawn(i)[:, 1:7].transpose(2, 0, 1) for i in range(7)])
    np.testing.assert_array_equal((shown * 255).round().numpy(), expected)


def test_minus_one_everywhere_means_no_labels_and_somewhere_is_refused(opened, refused, rows, tmp_path: Path):
    rows([-1, -1]).save_to_disk(tmp_path / "none")
    assert opened(tmp_path / "none").train.labels is None
    rows([-1, 0, None]).save_to_disk(tmp_path / "some")
    assert "2 (" in refused(tmp_path / "some").message


def test_columns_that_cannot_be_told_apart_are_listed(opened, refused, rows, tmp_path: Path):
    right = rows([0, 1], column="right").select_columns(["right"])
    two = datasets.concatenate_datasets([rows([0, 1], column="left"), right], axis=1)
    two.save_to_disk(tmp_path / "two")
    assert "columns left, right could each be the image" in refused(tmp_path / "two").message
    two.rename_column("right", "image").save_to_disk(tmp_path / "named")
    assert opened(tmp_path / "named").train.column == "image"


def test_sets_without_pictures_or_training_images_are_told(refused, rows, tmp_path: Path):
    rows([0]).remove_columns("image").save_to_disk(tmp_path / "text")
    assert "no picture in train" in refused(tmp_path / "text").message
    datasets.DatasetDict({"test": rows([0])}).save_to_disk(tmp_path / "test")
    assert "no split train, only test" in refused(tmp_path / "test").message


def test_a_damaged_picture_is_told_by_its_number(opened, tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "png")
    pictures = [{"bytes": content, "path": None} for content in (buffer.getvalue(), b"no picture")] + [None]
    made = datasets.Dataset.from_dict({"image": pictures}, features=datasets.Features({"image": datasets.Image()}))
    made.save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set").train
    with pytest.raises(BadImageError, match="train 1: not an image"):
        source.load(1)
    with pytest.raises(BadImageError, match="train 2: no picture is stored"):
        source.load(2)


def test_a_damaged_folder_is_told(refused, rows, tmp_path: Path):
    rows([0]).save_to_disk(tmp_path / "set")
    (tmp_path / "set/state.json").unlink()
    assert "cannot be read" in refused(tmp_path / "set").message


@pytest.fixture
def unread(monkeypatch):
    """Makes opening a picture an error."""
    monkeypatch.setattr("groco_cli.data.sources.huggingface.HuggingFaceSource.open", None)


def test_a_fingerprint_changes_with_rows_column_and_files_and_reads_no_picture(opened, rows, tmp_path: Path, request):
    beside = rows([0, 1, 1], column="beside").select_columns("beside")
    datasets.concatenate_datasets([rows([0, 1, 1]), beside], axis=1).save_to_disk(tmp_path / "set")
    rows([0, 1, 1], start=5).save_to_disk(tmp_path / "other")
    source, other = opened(tmp_path / "set").train, opened(tmp_path / "other").train
    request.getfixturevalue("unread")
    found = [source.fingerprint(), other.fingerprint(), replace(source, column="beside").fingerprint()]
    found += [source.subset(torch.tensor(numbers)).fingerprint() for numbers in ([0, 1], [1, 0], [1, 2])]
    assert source.subset(torch.tensor([1, 0])).fingerprint() == found[4]
    (file,) = (tmp_path / "set").glob("*.arrow")
    assert source.fingerprint() == found[0]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    found.append(source.fingerprint())
    assert len(set(found)) == 7


def test_a_fingerprint_is_the_same_in_every_process(opened, rows, tmp_path: Path):
    rows([0, 1, 1]).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set").train.subset(torch.tensor([2, 0]))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(fingerprint_of_part, str(tmp_path / "set")).result() == source.fingerprint()


def test_where_pictures_lie_elsewhere_they_are_read_for_the_fingerprint(rows, picture, tmp_path: Path):
    features = datasets.Features({"image": datasets.Image(decode=False)})
    place = tmp_path / "0.png"
    place.write_bytes(picture(0))
    outside = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": str(place)}]}, features=features)
    source = HuggingFaceSource(outside, "image", None, (), "outside")
    before = source.fingerprint()
    assert source.fingerprint() == before
    place.write_bytes(picture(1))
    assert source.fingerprint() != before


def fingerprint_of_part(folder: str) -> str:
    return open_dataset(folder, Path("unused")).train.subset(torch.tensor([2, 0])).fingerprint()
