"""Bank and queries from two sources: classes by name, and what cannot be compared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groco_cli.data.sources import Dataset
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.knn_sources import check_bank_shows_all, open_bank_and_queries, thin_out

ROOT = Path("unused")


@pytest.fixture
def sources(picture_folder) -> tuple[str, str]:
    """A folder of cat, dog and emu, and one of emu and dog."""
    names = [f"bank/{kind}/{i}.png" for kind in ("cat", "dog", "emu") for i in range(2)]
    folder = picture_folder(*names, "asked/emu/7.png", "asked/dog/8.png", "asked/dog/9.png", "flat/0.png")
    return str(folder / "bank"), str(folder / "asked")


def test_classes_are_matched_by_name(sources):
    bank, queries = sources
    dataset = open_bank_and_queries(bank, queries, ROOT)
    assert dataset.name == f"{queries} among {bank}"
    assert dataset.train.classes == dataset.test.classes == ("cat", "dog", "emu")
    named = {Path(dataset.test.name_of(i)).name: int(label) for i, label in enumerate(dataset.test.labels)}
    assert named == {"7.png": 2, "8.png": 1, "9.png": 1}


def test_of_a_source_with_two_parts_the_right_one_is_taken(sources):
    bank, _ = sources
    digits = open_bank_and_queries("digits", "digits", ROOT)
    assert (len(digits.train), len(digits.test)) == (2874, 360)
    alone = open_bank_and_queries(bank, f"{bank}/", ROOT)
    assert alone.test is None  # leave-one-out


def test_a_class_that_the_bank_lacks_is_told_by_name(sources):
    bank, queries = sources
    with pytest.raises(GrocoError, match=r"--queries .*bank: class cat not among the bank's \(dog, emu\)"):
        open_bank_and_queries(queries, bank, ROOT)


def test_a_source_that_cannot_serve_is_told_by_its_option(sources):
    bank, queries = sources
    flat = str(Path(bank).with_name("flat"))
    with pytest.raises(GrocoError, match=f"--bank {flat} has no labels"):
        open_bank_and_queries(flat, queries, ROOT)
    with pytest.raises(GrocoError, match=f"--queries {flat} has no labels"):
        open_bank_and_queries(bank, flat, ROOT)
    with pytest.raises(UsageError) as caught:
        open_bank_and_queries(bank, "nowhere", ROOT)
    assert caught.value.message == "--queries nowhere: no such folder or data set"


def test_a_class_without_an_image_in_the_bank_is_told(noise):
    dataset = Dataset("noise", noise(9), noise(9))
    check_bank_shows_all(dataset)
    check_bank_shows_all(thin_out(dataset, 3, 0))
    check_bank_shows_all(thin_out(dataset, 2, 2))
    check_bank_shows_all(replace(dataset, test=None))
    with pytest.raises(GrocoError, match="3 of 9 queries are of class c, which the bank has no image of"):
        check_bank_shows_all(thin_out(dataset, 2, 0))
    only = replace(dataset.train, labels=torch.zeros(9, dtype=torch.int64))
    with pytest.raises(GrocoError, match=r"6 of 9 queries are of 2 classes \(b, c\)"):
        check_bank_shows_all(replace(dataset, train=only))


def test_leave_one_out_warns_of_classes_of_a_single_image(noise, capsys):
    dataset = Dataset("noise", noise(9), None)
    check_bank_shows_all(dataset)
    assert capsys.readouterr().err == ""
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    check_bank_shows_all(replace(dataset, train=replace(dataset.train, labels=labels)))
    assert capsys.readouterr().err == (
        "warning: 1 of 9 images can never be classified rightly by all the others: class b of a single image\n"
    )
    check_bank_shows_all(thin_out(dataset, 2, 0))
    assert "2 of 2 images can never be" in (told := capsys.readouterr().err)
    assert told.endswith("2 classes (a, b) of a single image\n")


def test_a_part_of_a_folder_shows_all_of_its_classes(picture_folder):
    names = [f"{part}/{kind}/{i}.png" for part in ("train", "val") for kind in ("cat", "dog", "emu") for i in range(4)]
    dataset = open_bank_and_queries(folder := str(picture_folder(*names)), folder, ROOT)
    part = thin_out(dataset, 6, 3)
    assert (part.train.labels.tolist(), part.test.labels.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
    check_bank_shows_all(part)
