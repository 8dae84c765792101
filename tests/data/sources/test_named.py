"""Named sets, each through torchvision's own reader: real CIFAR-10, and made-up sets laid out like the real ones."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from groco_cli.data.digits import digits
from groco_cli.data.sources import Dataset, open_dataset


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


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


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
    assert f"--data {name}: not in {tmp_path}" in error.message
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
