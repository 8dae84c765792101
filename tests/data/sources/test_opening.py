"""What `--data` may say, and what is answered where it makes no sense."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from groco_cli.data.sources import NAMED, default_root, located, open_dataset
from groco_cli.data.sources.named import ALIASES
from groco_cli.data.sources.transfer import TRANSFER_SETS
from groco_cli.errors import UsageError

Draw = Callable[..., Path]


def test_a_file_is_refused(picture_folder: Draw, refused):
    path = picture_folder("1.png") / "1.png"
    assert "is a file" in refused(path, UsageError).message


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("cifar", "did you mean 'cifar10' or 'cifar100'?"),
        ("pet", "did you mean 'pets'?"),
        ("digit", "did you mean 'digits'?"),
        ("/nowhere/at/all", "digits, cifar10, cifar100"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(data: str, hint: str, refused):
    error = refused(data, UsageError)
    assert error.message == f"{data}: no such folder or data set"
    assert hint in error.hint


@pytest.mark.parametrize("name", ALIASES)
def test_the_short_names_of_transfer_are_known_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Each opens what `groco transfer --sets` reads under that name, and nothing where a folder is called so."""
    opened = TRANSFER_SETS[name].read
    assert isinstance(opened, partial)
    assert opened.args == (ALIASES[name],)
    asked = []
    monkeypatch.setitem(NAMED, ALIASES[name], lambda root: asked.append(root))
    monkeypatch.chdir(tmp_path)
    open_dataset(name, Path("root"))
    assert asked == [Path("root")]


def test_a_folder_comes_before_a_short_name(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch):
    folder = picture_folder("pets/rex.png") / "pets"
    monkeypatch.chdir(folder.parent)
    assert open_dataset("pets", Path("root")).train.paths == (Path("pets/rex.png"),)


@pytest.mark.parametrize(
    ("data", "there"),
    [
        ("pictures", "{here}/pictures"),
        ("./list.csv", "{here}/list.csv"),
        ("/data/imagenet", "/data/imagenet"),
        ("~/photos", "{home}/photos"),
        ("digits", "digits"),
        ("cifar10", "cifar10"),
        ("cars", "cars"),
        ("pets", "{here}/pets"),
        ("a-{0..2}.tar", "{here}/a-{0..2}.tar"),
        ("a-{0..2}.tar::val=b-*.tar", "{here}/a-{0..2}.tar::val={here}/b-*.tar"),
        ("train=a.tar::https://x.org/b-{0..2}.tar", "train={here}/a.tar::https://x.org/b-{0..2}.tar"),
        ("pipe:cat a.tar", "pipe:cat a.tar"),
        ("$SETS/a.tar", "$SETS/a.tar"),
        ("{/x,/y}/a.tar", "{/x,/y}/a.tar"),
        ("", ""),
    ],
)
def test_paths_are_told_so_that_they_hold_in_any_folder(tmp_path, monkeypatch: pytest.MonkeyPatch, data, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "pets").mkdir()
    found = located(data)
    assert found == there.replace("{here}", str(tmp_path)).replace("{home}", "/home/me")
    monkeypatch.chdir("/")
    assert located(found) == found


@pytest.mark.parametrize("data", ["~nobody.is.called.so/pictures", "x" * 5000])
def test_an_impossible_path_is_told(data: str, refused):
    assert refused(data, UsageError).message.startswith(f"{data}: cannot be opened")


def test_a_folder_of_a_user_may_be_written_with_a_tilde(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch, opened):
    folder = picture_folder("1.png")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert opened(Path("~/pictures")).train.paths == (folder / "1.png",)
    assert default_root("~/sets") == default_root(Path("~/sets")) == folder.parent / "sets"
    assert default_root() == default_root("") == folder.parent / ".cache/groco"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("val=a.tar", "no shard to train on"),
        ("a-{0..2.tar", "cannot be expanded"),
        ("a-${NOWHERE}.tar", "cannot be expanded"),
        ("*.tar", "no file fits"),
        ("a.tar::a.tar", "named twice"),
        ("train=a.tar::val=b.tar::test=c.tar", "too many parts"),
        ("https://[", "no address"),
    ],
)
def test_patterns_that_mean_nothing_are_told(refused, data: str, told: str):
    assert told in refused(data, UsageError).message


def test_missing_shards_are_counted(refused, tmp_path: Path, write_shard: Draw):
    write_shard("s-1.tar", [0])
    error = refused(tmp_path / "s-{0..4}.tar", UsageError)
    assert "4 of 5 shards are missing" in error.message
    assert str(tmp_path / "s-0.tar") in error.message
    assert "one.csv" in refused(tmp_path / "one.csv", UsageError).message


def test_a_folder_whose_name_looks_like_a_pattern_is_opened(opened, picture_folder: Draw):
    folder = picture_folder("1.png")
    named = folder.rename(folder.parent / "a{1..2}[x]")
    assert len(opened(named).train) == 1


def test_a_hugging_face_folder_without_its_package_says_what_to_install(
    refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not there
    error = refused(tmp_path)
    assert "package datasets is not installed" in error.message
    assert "pip install 'groco[hf]'" in error.hint
