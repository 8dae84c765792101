"""Folders of images: which files count, in what order, with which labels."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from groco_cli.data.sources import FileSource

Draw = Callable[..., Path]


def names(source: FileSource, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in source.paths]


def test_sub_folders_are_classes(picture_folder: Draw, opened):
    folder = picture_folder("dog/1.png", "cat/2.jpg", "cat/10.png", "dog/deeper/0.png")
    dataset = opened(folder)
    assert (dataset.name, dataset.test) == (str(folder), None)
    assert names(dataset.train, folder) == ["cat/10.png", "cat/2.jpg", "dog/1.png", "dog/deeper/0.png"]
    assert dataset.train.classes == ("cat", "dog")
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]


def test_a_flat_folder_has_no_labels(picture_folder: Draw, opened):
    source = opened(picture_folder("b.png", "a.JPG", "c.webp")).train
    assert [path.name for path in source.paths] == ["a.JPG", "b.png", "c.webp"]
    assert (source.labels, source.classes) == (None, ())


def test_a_folder_with_pictures_at_its_top_and_in_sub_folders_has_no_labels(picture_folder: Draw, opened):
    folder = picture_folder("cat/1.png", "dog/1.png", "loose.png")
    source = opened(folder).train
    assert names(source, folder) == ["cat/1.png", "dog/1.png", "loose.png"]
    assert (source.labels, source.classes) == (None, ())


@pytest.mark.parametrize("held_out", ["val", "test", "validation"])
def test_train_and_held_out_folders_are_told_apart(picture_folder: Draw, held_out: str, opened):
    folder = picture_folder("train/cat/1.png", "train/dog/1.png", f"{held_out}/cat/2.png", f"{held_out}/dog/2.png")
    dataset = opened(folder)
    assert names(dataset.train, folder) == ["train/cat/1.png", "train/dog/1.png"]
    assert names(dataset.test, folder) == [f"{held_out}/cat/2.png", f"{held_out}/dog/2.png"]
    assert dataset.train.classes == dataset.test.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 1]


def test_held_out_pictures_are_numbered_by_the_training_classes(picture_folder: Draw, opened):
    folder = picture_folder("train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "val/cat/1.png", "val/bee/1.png")
    dataset = opened(folder)
    assert dataset.test.classes == ("ant", "bee", "cat")
    assert names(dataset.test, folder) == ["val/bee/1.png", "val/cat/1.png"]
    assert dataset.test.labels.tolist() == [1, 2]


def test_unlabelled_parts_stay_unlabelled(picture_folder: Draw, opened):
    dataset = opened(picture_folder("train/1.png", "val/2.png"))
    assert dataset.train.labels is None
    assert dataset.test.labels is None


@pytest.mark.parametrize(
    ("unknown", "told"), [(["emu"], "class emu not among"), (["emu", "yak"], "classes emu, yak not among")]
)
def test_held_out_classes_that_training_lacks_are_listed(picture_folder: Draw, unknown: list[str], told: str, refused):
    extra = [f"val/{name}/1.png" for name in unknown]
    folder = picture_folder("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", *extra)
    error = refused(folder)
    assert told in error.message
    assert str(folder / "val") in error.message


def test_hidden_files_and_other_files_are_passed_over(picture_folder: Draw, opened):
    folder = picture_folder("cat/1.png", "cat/.2.png", ".thumbnails/3.png", "dog/._4.png", "dog/5.png")
    (folder / "cat/readme.txt").write_text("two cats")
    (folder / "empty").mkdir()
    source = opened(folder).train
    assert names(source, folder) == ["cat/1.png", "dog/5.png"]
    assert source.classes == ("cat", "dog")


def begin_run(folder: Path) -> None:
    """What a run's folder holds before it has a picture, and the picture."""
    for name in ("settings.toml", "metrics.jsonl", "plots/curves.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    "images", [("1.png", "2.png"), ("cat/1.png", "dog/2.png"), ("train/cat/1.png", "val/cat/2.png")]
)
def test_groco_s_own_runs_are_left_out_and_named(picture_folder: Draw, opened, capsys, images: tuple[str, ...]):
    folder = picture_folder(*images)
    before = opened(folder)
    assert capsys.readouterr().err == ""
    top = folder / "train" if images[0].startswith("train") else folder
    for run in ("runs/digits", "runs/digits-2", "cat/own"):
        begin_run(top / run)
    after = opened(folder)
    assert capsys.readouterr().err == f"{top}: left out cat/own and 2 more, written by groco pretrain\n"
    assert (after.train.paths, after.train.classes) == (before.train.paths, before.train.classes)
    assert (after.test is None) == (before.test is None)


def test_settings_alone_are_no_run(picture_folder: Draw, opened):
    folder = picture_folder("cat/1.png", "dog/2.png")
    (folder / "cat/settings.toml").touch()
    assert opened(folder).train.classes == ("cat", "dog")


def test_a_run_s_own_folder_is_refused(picture_folder: Draw, refused):
    folder = picture_folder("cat/1.png", "dog/2.png")
    begin_run(folder)
    assert f"{folder} is a groco run's folder" in refused(folder).message


def test_the_order_does_not_depend_on_that_of_the_disk(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch, opened):
    folder = picture_folder(*(f"{c}/{i}.png" for c in "abc" for i in range(5)))
    expected = opened(folder).train.paths
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reversed(list(scandir(path))))
    assert opened(folder).train.paths == expected == tuple(sorted(expected))


def test_links_are_followed_but_never_in_a_circle(picture_folder: Draw, tmp_path: Path, opened):
    folder = picture_folder("cat/1.png", "dog/1.png")
    (folder / "cat/again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(tmp_path / "store")
    (tmp_path / "store").mkdir()
    shutil.copy(folder / "cat/1.png", tmp_path / "store/2.png")
    assert names(opened(folder).train, folder) == ["cat/1.png", "dog/1.png", "elsewhere/2.png"]


def test_an_empty_folder_is_told_with_the_endings_there_are(tmp_path: Path, refused):
    (tmp_path / "notes.txt").write_text("no picture")
    error = refused(tmp_path)
    assert f"{tmp_path}: no image in it" in error.message
    assert ".png" in error.hint


def test_a_folder_without_a_decodable_image_is_told(tmp_path: Path, refused):
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_text("no picture")
    error = refused(tmp_path)
    assert f"{tmp_path}: no decodable image" in error.message
    assert "00.jpg" in error.message


def test_a_few_bad_images_do_not_close_a_folder(picture_folder: Draw, opened):
    folder = picture_folder("z.png")
    (folder / "a.jpg").write_text("no picture")
    assert len(opened(folder).train) == 2


def test_a_folder_that_cannot_be_listed_is_told(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch, refused):
    folder = picture_folder("cat/1.png")

    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    assert "cannot be read (Permission denied)" in refused(folder).message


def test_a_folder_that_may_not_be_looked_into_is_told(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch, refused):
    folder = picture_folder("cat/1.png")

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read (Permission denied)" in refused(folder).message


def test_files_are_decoded_when_asked_for(picture_folder: Draw, opened):
    folder = picture_folder("a.png", "b.png")
    source = opened(folder).train
    for number, name in enumerate(["a.png", "b.png"]):
        expected = np.asarray(Image.open(folder / name)).transpose(2, 0, 1)
        np.testing.assert_array_equal(source.load(number), expected)
