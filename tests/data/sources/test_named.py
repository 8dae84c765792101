"""Named sets through torchvision's own readers: real CIFAR-10, and made-up arrays laid out like the real ones."""

import bz2
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import CIFAR10

from groco_cli.data.digits import digits
from groco_cli.data.sources import Dataset, open_dataset
from groco_cli.data.sources.named import TORCHVISION


def test_the_embedded_digits_need_no_file():
    dataset = open_dataset("digits", Path("unused"))
    for source, train in ((dataset.train, True), (dataset.test, False)):
        pictures, labels = digits(train=train)
        assert torch.equal(source.images, pictures)
        assert torch.equal(source.labels, labels)
        assert source.classes == tuple("0123456789")


@pytest.fixture(scope="module")
def cifar10(cifar_root: Path) -> Dataset:
    return open_dataset("cifar10", cifar_root)


def test_cifar10_is_whole(cifar10: Dataset):
    for source, each in ((cifar10.train, 5000), (cifar10.test, 1000)):
        assert source.images.shape == (10 * each, 3, 32, 32)
        assert source.images.dtype == torch.uint8
        assert source.labels.dtype == torch.int64
        assert source.labels.bincount().tolist() == [each] * 10
        assert source.classes[:4] == ("airplane", "automobile", "bird", "cat")


def test_cifar10_is_shown_as_torchvision_shows_it(cifar10: Dataset, cifar_root: Path):
    theirs = CIFAR10(cifar_root, train=False)
    for number in (0, 1, 4999, 9999):
        image, label = theirs[number]
        np.testing.assert_array_equal(cifar10.test.load(number), np.asarray(image).transpose(2, 0, 1))
        assert cifar10.test.labels[number] == label


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
@pytest.mark.parametrize("state", ["absent", "damaged"])
def test_a_named_set_that_cannot_be_had_says_where_to_put_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, folder: str, state: str, refused
):
    if state == "damaged":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_batch").write_bytes(b"half a")
    error = refused(name, root=tmp_path)
    assert f"{name}: not in {tmp_path}" in error.message
    assert "Name or service not known" in error.message
    assert folder in error.hint
    assert "--data-root" in error.hint
    assert capsys.readouterr().out == "", "standard output is for results"


def test_what_a_reader_prints_goes_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Chatty:
        base_folder, url, classes, targets = "folder", "url", ["a"], [0]
        data = np.zeros((1, 32, 32, 3), dtype=np.uint8)

        def __init__(self, *_: object, **__: object) -> None:
            print("Downloading")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Chatty)
    open_dataset("cifar10", tmp_path)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Downloading\n" * 2)


def idx(*shape: int, of: np.ndarray) -> bytes:
    """MNIST's own format: a magic number, the sizes, the bytes."""
    return struct.pack(f">I{len(shape)}I", 0x800 + len(shape), *shape) + of.astype(np.uint8).tobytes()


GREY = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)


@pytest.mark.usefixtures("unchecked", "offline")
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_greyscale_arrays_become_three_equal_channels(opened, layout, name: str, folder: str):
    for part, count in (("train", 3), ("t10k", 2)):
        layout.write(f"{folder}/raw/{part}-images-idx3-ubyte", idx(count, 28, 28, of=GREY[:count]))
        layout.write(f"{folder}/raw/{part}-labels-idx1-ubyte", idx(count, of=np.arange(count)))
    dataset = opened(name)
    assert (len(dataset.train), len(dataset.test), len(dataset.train.classes)) == (3, 2, 10)
    assert dataset.train.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(dataset.train.images, np.repeat(GREY[:, None], 3, axis=1))
    assert dataset.test.name_of(1) == f"{name} test 1"


COLOUR = np.random.default_rng(0).integers(0, 256, (4, 3, 96, 96), dtype=np.uint8)


@pytest.fixture
def stl10(layout) -> None:
    for name, pictures, labels in (
        ("train", COLOUR[:2], [3, 1]),
        ("test", COLOUR[2:3], [10]),
        ("unlabeled", COLOUR, []),
    ):
        layout.write(f"stl10_binary/{name}_X.bin", pictures.transpose(0, 1, 3, 2).tobytes())  # columns first
        layout.write(f"stl10_binary/{name}_y.bin", bytes(labels))
    layout.write("stl10_binary/class_names.txt", "\n".join("abcdefghij"))


@pytest.mark.usefixtures("unchecked", "offline", "stl10")
def test_stl10_is_read_through_torchvision(opened):
    dataset = opened("stl10")
    np.testing.assert_array_equal(dataset.train.images, COLOUR[:2])
    np.testing.assert_array_equal(dataset.test.images, COLOUR[2:3])
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([2, 0], [9])
    assert dataset.train.classes == tuple("abcdefghij")


@pytest.mark.usefixtures("unchecked", "offline", "stl10")
def test_the_unlabelled_stl10_has_the_labelled_pictures_too_and_no_labels(opened):
    dataset = opened("stl10-unlabeled")
    np.testing.assert_array_equal(dataset.train.images, np.concatenate([COLOUR[:2], COLOUR]))
    assert (dataset.train.labels, dataset.train.classes, dataset.test) == (None, (), None)


@pytest.mark.usefixtures("unchecked", "offline")
def test_svhn_is_read_through_torchvision(opened, layout):
    pictures = COLOUR[:, :, :32, :32]
    layout.root.mkdir()
    for part in ("train", "test"):
        savemat(
            layout.root / f"{part}_32x32.mat",
            {"X": pictures.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [9], [3]])},
        )
    dataset = opened("svhn")
    np.testing.assert_array_equal(dataset.train.images, pictures)
    assert dataset.train.labels.tolist() == [0, 1, 9, 3]
    assert dataset.train.classes == tuple("0123456789")


@pytest.mark.usefixtures("unchecked", "offline")
def test_usps_is_read_through_torchvision(opened, layout):
    grey = np.random.default_rng(0).integers(0, 2, (3, 256)) * 2 - 1  # -1 black, 1 white
    lines = [
        f"{label} " + " ".join(f"{i}:{v}" for i, v in enumerate(row, 1))
        for label, row in zip((10, 1, 3), grey, strict=True)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        layout.write(name, bz2.compress("\n".join(lines).encode()))
    dataset = opened("usps")
    assert dataset.train.labels.tolist() == [9, 0, 2]
    np.testing.assert_array_equal(dataset.train.images[:, 1].flatten(1), (grey > 0) * 255)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_set_that_is_not_there_says_where_to_put_it(refused, name: str):
    error = refused(name)
    assert f"{name}: not in" in error.message
    assert TORCHVISION[name].files in error.hint
    assert "--data-root" in error.hint
