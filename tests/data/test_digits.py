import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from groco_cli.data.digits import digits, read_handwriting

BOTH = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


def checksum(*, train: bool) -> str:
    pictures, labels = digits(train=train)
    return hashlib.sha256(pictures.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def handwriting() -> dict[bool, np.ndarray]:
    """Which of scikit-learn's digits each picture of the training (True) and test (False) part shows, told by the ink.

    A digit's number is written in base 13, and drawn as a full square in one of 13 inks, one place after the other: a
    flat square keeps its ink where it is scaled, turned or shifted.
    """
    number = np.arange(1797)
    found = {True: np.int64(0), False: np.int64(0)}
    for place in (169, 13, 1):
        ink = 4 + number // place % 13  # of 16
        squares = np.tile(ink[:, None, None], (1, 8, 8)), number % 10
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("groco_cli.data.digits.read_handwriting", lambda squares=squares: squares)
            for train in found:
                pictures, _ = digits.__wrapped__(train=train)  # past its cache
                brightest = pictures.flatten(1).max(dim=1).values.numpy()
                found[train] = found[train] + place * (np.rint(brightest / 255 * 16).astype(np.int64) - 4)
    return found


@pytest.mark.parametrize("found", [True, False], ids=["in its file", "through its function"])
def test_the_handwriting_is_scikit_learns(monkeypatch, found: bool):
    if not found:
        monkeypatch.setattr("groco_cli.data.digits.find_spec", lambda name: None)
    squares, written = read_handwriting()
    np.testing.assert_array_equal(squares, load_digits().images)
    np.testing.assert_array_equal(written, load_digits().target)


@BOTH
def test_pictures_are_square_bytes_of_every_class(train: bool):
    pictures, labels = digits(train=train)
    assert pictures.shape == (2874 if train else 360, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert labels.shape == (len(pictures),)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(10))


@BOTH
def test_pictures_are_grey_on_black(train: bool):
    pictures, _ = digits(train=train)
    assert (pictures[:, 0] == pictures[:, 1]).all()
    assert (pictures[:, 0] == pictures[:, 2]).all()
    assert (pictures == 0).float().mean() > 0.5
    assert (pictures.flatten(1).max(dim=1).values > 100).all(), "a digit fell off its canvas"


def test_training_and_test_pictures_show_different_handwriting(handwriting: dict[bool, np.ndarray]):
    train, test = sorted(handwriting[True]), sorted(handwriting[False])
    assert test == list(range(0, 1797, 5))
    assert train == [number for number in range(1797) if number % 5 for _ in range(2)]


@BOTH
def test_labels_are_those_of_the_handwriting(handwriting: dict[bool, np.ndarray], train: bool):
    _, labels = digits(train=train)
    np.testing.assert_array_equal(labels, load_digits().target[handwriting[train]])


def test_the_two_renderings_of_a_digit_differ():
    pictures, labels = digits(train=True)
    first, second = pictures.chunk(2)
    assert (labels[: len(first)] == labels[len(first) :]).all()
    assert (first != second).flatten(1).any(dim=1).all()


def test_another_process_draws_the_same_pictures():
    code = (
        "import hashlib; from groco_cli.data.digits import digits\n"
        "for train in (True, False):\n"
        "    print(hashlib.sha256(b''.join(t.numpy().tobytes() for t in digits(train=train))).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert other.stdout.split() == [checksum(train=True), checksum(train=False)]


def test_nothing_is_drawn_from_the_global_generators():
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    digits.__wrapped__(train=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
