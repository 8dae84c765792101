"""The eleven sets of transfer on small copies laid out as the originals, whole, with a piece missing, and damaged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.io import loadmat

from groco_cli.data.sources.base import FileSource
from groco_cli.data.sources.transfer import TRANSFER_SETS, Failed, Missing, TransferSet, open_transfer_set

Meta = Callable[[str], Path]


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("name", TRANSFER_SETS)
def test_a_set_laid_out_as_the_original_is_read_with_its_split(layout, small, root: Path, name: str):
    lay_out, *expected = small[name]
    lay_out(layout)
    opened = open_transfer_set(name, root)
    assert isinstance(opened, TransferSet), opened
    for source, (pictures, classes) in zip((opened.train, opened.test), expected, strict=True):
        if pictures:
            assert isinstance(source, FileSource)
            assert [path.stem for path in source.paths] == pictures
        if classes:
            found = [source.classes[label] for label in source.labels]
            assert classes in (found, source.labels.tolist())
            assert source.labels.dtype == torch.int64
        assert source.classes == opened.train.classes
        assert source.load(0).shape[0] == 3
    entry = TRANSFER_SETS[name]
    assert opened.remark == (
        f"partial copy: {len(opened.train)} of {entry.train:,} training images, "
        f"{len(opened.test)} of {entry.test:,} test images"
    )


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "wanted"), [(name, file) for name, entry in TRANSFER_SETS.items() for file in entry.files]
)
def test_a_piece_that_is_not_there_is_named(layout, small, root: Path, name: str, wanted: str):
    small[name][0](layout)
    (root / wanted).rename(root / "elsewhere")
    assert open_transfer_set(name, root) == Missing(name=name, wanted=(root / wanted,))


def test_a_set_that_is_not_there_at_all_names_its_folder(tmp_path: Path):
    for name, entry in TRANSFER_SETS.items():
        folder = tmp_path / Path(entry.files[0]).parts[0]
        assert open_transfer_set(name, tmp_path) == Missing(name=name, wanted=(folder,))
        assert all(Path(file).parts[0] == folder.name for file in entry.files)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt", "03 Zeppelin\n", "Zeppelin"),
        ("caltech101", "caltech101/train.txt", "image_0001.jpg 0\n", "train.txt, line 1: 'image_0001.jpg 0'"),
        ("caltech101", "caltech101/train.txt", "../../x/image_0001.jpg 0\n", "line 1"),
        ("caltech101", "caltech101/train.txt", "\r\n", "no picture in it"),
        ("caltech101", "caltech101/train.txt", b"\xff\xfe\x00", "train.txt: cannot be read"),
        (
            "caltech101",
            "caltech101/train.txt",
            "yin_yang/image_0058.jpg 101\n",
            "1 of the training pictures are for testing too",
        ),
        ("caltech101", "caltech101/test.txt", "anchor/image_0001.jpg 3\n", "no training picture of anchor"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", b"no MATLAB file", "cannot be read"),
        ("cifar10", "cifar-10-batches-py/test_batch", b"half a", "cannot be read"),
        ("dtd", "dtd/dtd/labels/test1.txt", "banded/banded_test.jpg\n", "different classes"),
        ("flowers", "flowers-102/setid.mat", b"", "cannot be read"),
        ("food", "food-101/meta/test.json", "{", "cannot be read"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "boxer_dog_2\n", "cannot be read"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "boxer_dog_2 2 2 1\n", "different classes"),
        ("sun397", "SUN397/Testing_01.txt", "/a/sun_b.jpg\n", "Testing_01.txt, line 1"),
        ("sun397", "SUN397/Testing_01.txt", "/a/abbey/sun_x.jpg\n", "1 of 1 listed pictures are missing"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "\n", "test.txt: no picture in it"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "000009\n", "000009.xml: cannot be read"),
        ("voc2007", "VOCdevkit/VOC2007/Annotations/000001.xml", "<annotation>", "000001.xml: cannot be read"),
        ("voc2007", "VOCdevkit/VOC2007/JPEGImages/000005.jpg", b"no picture", None),
    ],
)
def test_a_damaged_piece_is_told_in_one_line(
    layout, small, root: Path, name: str, file: str, content: str | bytes, told: str | None
):
    small[name][0](layout)
    layout.write(file, content)
    opened = open_transfer_set(name, root)
    if told is None:  # one bad picture among good ones is met when it is read
        assert isinstance(opened, TransferSet)
        return
    assert isinstance(opened, Failed)
    assert told in opened.error.message
    assert "\n" not in opened.error.message


def test_cars_without_test_labels_are_told(layout, small, root: Path, meta: Meta):
    small["cars"][0](layout)
    published = meta("stanford_cars/devkit/cars_test_annos.mat").read_bytes()
    layout.write("stanford_cars/cars_test_annos_withlabels.mat", published)
    opened = open_transfer_set("cars", root)
    assert isinstance(opened, Failed)
    assert "cannot be read" in opened.error.message


def test_the_published_flowers_and_cars_have_the_published_counts(layout, root: Path, meta: Meta):
    splits = loadmat(meta("flowers-102/setid.mat"))
    entry = TRANSFER_SETS["flowers"]
    assert (splits["trnid"].size + splits["valid"].size, splits["tstid"].size) == (entry.train, entry.test)
    entry = TRANSFER_SETS["cars"]
    devkit = meta("stanford_cars/devkit")
    counts = [loadmat(devkit / f"cars_{part}_annos.mat")["annotations"].size for part in ("train", "test")]
    assert counts == [entry.train, entry.test]


def test_real_cifar10_is_whole(cifar_root: Path):
    opened = open_transfer_set("cifar10", cifar_root)
    assert isinstance(opened, TransferSet)
    assert (len(opened.train), len(opened.test), opened.remark) == (50_000, 10_000, "")


def test_more_pictures_than_were_published_are_another_split(
    layout, small, root: Path, monkeypatch: pytest.MonkeyPatch
):
    small["sun397"][0](layout)
    monkeypatch.setitem(TRANSFER_SETS, "sun397", replace(TRANSFER_SETS["sun397"], train=2, test=2))
    opened = open_transfer_set("sun397", root)
    assert isinstance(opened, TransferSet)
    assert opened.remark == "another split: 3 training and 2 test images, not 2 and 2"
