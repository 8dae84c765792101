import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from groco_cli.data.digits import digits
from groco_cli.data.sources import Dataset, FileSource, MemorySource, data_root, first, open_dataset, pick
from groco_cli.errors import GrocoError, UsageError

Draw = Callable[..., Path]
ROOT = Path("unused")


def names(source: FileSource, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in source.paths]


def opened(folder: Path) -> Dataset:
    return open_dataset(str(folder), ROOT)


def refused(data: object, kind: type[GrocoError] = GrocoError, root: Path = ROOT) -> GrocoError:
    """The error that opening raises, which has to be a single line and a hint."""
    with pytest.raises(kind) as caught:
        open_dataset(str(data), root)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_sub_folders_are_classes(picture_folder: Draw):
    folder = picture_folder("dog/1.png", "cat/2.jpg", "cat/10.png", "dog/deeper/0.png")
    dataset = opened(folder)
    assert (dataset.name, dataset.test) == (str(folder), None)
    assert names(dataset.train, folder) == ["cat/10.png", "cat/2.jpg", "dog/1.png", "dog/deeper/0.png"]
    assert dataset.train.classes == ("cat", "dog")
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]


def test_a_flat_folder_has_no_labels(picture_folder: Draw):
    source = opened(picture_folder("b.png", "a.JPG", "c.webp")).train
    assert [path.name for path in source.paths] == ["a.JPG", "b.png", "c.webp"]
    assert (source.labels, source.classes) == (None, ())


def test_a_folder_with_pictures_at_its_top_and_in_sub_folders_has_no_labels(picture_folder: Draw):
    folder = picture_folder("cat/1.png", "dog/1.png", "loose.png")
    source = opened(folder).train
    assert names(source, folder) == ["cat/1.png", "dog/1.png", "loose.png"]
    assert (source.labels, source.classes) == (None, ())


@pytest.mark.parametrize("held_out", ["val", "test", "validation"])
def test_train_and_held_out_folders_are_told_apart(picture_folder: Draw, held_out: str):
    folder = picture_folder("train/cat/1.png", "train/dog/1.png", f"{held_out}/cat/2.png", f"{held_out}/dog/2.png")
    dataset = opened(folder)
    assert names(dataset.train, folder) == ["train/cat/1.png", "train/dog/1.png"]
    assert names(dataset.test, folder) == [f"{held_out}/cat/2.png", f"{held_out}/dog/2.png"]
    assert dataset.train.classes == dataset.test.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 1]


def test_held_out_pictures_are_numbered_by_the_training_classes(picture_folder: Draw):
    folder = picture_folder("train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "val/cat/1.png", "val/bee/1.png")
    dataset = opened(folder)
    assert dataset.test.classes == ("ant", "bee", "cat")
    assert names(dataset.test, folder) == ["val/bee/1.png", "val/cat/1.png"]
    assert dataset.test.labels.tolist() == [1, 2]


def test_unlabelled_parts_stay_unlabelled(picture_folder: Draw):
    dataset = opened(picture_folder("train/1.png", "val/2.png"))
    assert dataset.train.labels is None
    assert dataset.test.labels is None


@pytest.mark.parametrize(
    ("unknown", "told"), [(["emu"], "class emu not among"), (["emu", "yak"], "classes emu, yak not among")]
)
def test_held_out_classes_that_training_lacks_are_listed(picture_folder: Draw, unknown: list[str], told: str):
    extra = [f"val/{name}/1.png" for name in unknown]
    folder = picture_folder("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", *extra)
    error = refused(folder)
    assert told in error.message
    assert str(folder / "val") in error.message


def test_hidden_files_and_other_files_are_passed_over(picture_folder: Draw):
    folder = picture_folder("cat/1.png", "cat/.2.png", ".thumbnails/3.png", "dog/._4.png", "dog/5.png")
    (folder / "cat/readme.txt").write_text("two cats")
    (folder / "empty").mkdir()
    source = opened(folder).train
    assert names(source, folder) == ["cat/1.png", "dog/5.png"]
    assert source.classes == ("cat", "dog")


def test_the_order_does_not_depend_on_that_of_the_disk(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch):
    folder = picture_folder(*(f"{c}/{i}.png" for c in "abc" for i in range(5)))
    expected = opened(folder).train.paths
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reversed(list(scandir(path))))
    assert opened(folder).train.paths == expected == tuple(sorted(expected))


def test_links_are_followed_but_never_in_a_circle(picture_folder: Draw, tmp_path: Path):
    folder = picture_folder("cat/1.png", "dog/1.png")
    (folder / "cat/again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(tmp_path / "store")
    (tmp_path / "store").mkdir()
    shutil.copy(folder / "cat/1.png", tmp_path / "store/2.png")
    assert names(opened(folder).train, folder) == ["cat/1.png", "dog/1.png", "elsewhere/2.png"]


def test_an_empty_folder_is_told_with_the_endings_there_are(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no picture")
    error = refused(tmp_path)
    assert f"{tmp_path}: no image in it" in error.message
    assert ".png" in error.hint


def test_a_folder_without_a_decodable_image_is_told(tmp_path: Path):
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_text("no picture")
    error = refused(tmp_path)
    assert f"{tmp_path}: no decodable image" in error.message
    assert "00.jpg" in error.message


def test_a_few_bad_images_do_not_close_a_folder(picture_folder: Draw):
    folder = picture_folder("z.png")
    (folder / "a.jpg").write_text("no picture")
    assert len(opened(folder).train) == 2


def test_a_folder_that_cannot_be_listed_is_told(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch):
    folder = picture_folder("cat/1.png")

    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(GrocoError, match=r"cannot be read \(Permission denied\)"):
        opened(folder)


def test_a_file_is_refused(picture_folder: Draw):
    path = picture_folder("1.png") / "1.png"
    assert "is a file" in refused(path, UsageError).message


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("cifar", "did you mean 'cifar10' or 'cifar100'?"),
        ("digit", "did you mean 'digits'?"),
        ("/nowhere/at/all", "digits, cifar10, cifar100"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(data: str, hint: str):
    error = refused(data, UsageError)
    assert f"--data {data}: no such folder or data set" in error.message
    assert hint in error.hint


@pytest.mark.parametrize("data", ["~nobody.is.called.so/pictures", "x" * 5000])
def test_an_impossible_path_is_told(data: str):
    assert f"--data {data}" in refused(data, UsageError).message


def test_a_folder_of_a_user_may_be_written_with_a_tilde(picture_folder: Draw, monkeypatch: pytest.MonkeyPatch):
    folder = picture_folder("1.png")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert opened(Path("~/pictures")).train.paths == (folder / "1.png",)
    assert data_root("~/sets") == folder.parent / "sets"
    assert data_root("") == folder.parent / ".cache/groco"


def test_files_are_decoded_when_asked_for(picture_folder: Draw):
    folder = picture_folder("a.png", "b.png")
    source = opened(folder).train
    for number, name in enumerate(["a.png", "b.png"]):
        expected = np.asarray(Image.open(folder / name)).transpose(2, 0, 1)
        np.testing.assert_array_equal(source.load(number), expected)


def test_the_embedded_digits_need_no_file():
    dataset = open_dataset("digits", ROOT)
    for source, train in ((dataset.train, True), (dataset.test, False)):
        pictures, labels = digits(train=train)
        assert torch.equal(source.images, pictures)
        assert torch.equal(source.labels, labels)
        assert source.classes == tuple("0123456789")


def memory_source() -> MemorySource:
    return MemorySource(torch.arange(6 * 3 * 4, dtype=torch.uint8).view(6, 3, 2, 2), torch.arange(6) * 10, ("a", "b"))


def file_source() -> FileSource:
    return FileSource(tuple(Path(f"{i}.png") for i in range(6)), torch.arange(6) * 10, ("a", "b"))


def test_picked_images_come_in_the_order_asked_for():
    chosen = [4, 0, 4, 2]
    in_memory, in_files = (pick(source(), torch.tensor(chosen)) for source in (memory_source, file_source))
    assert len(in_memory) == len(in_files) == 4
    assert in_memory.labels.tolist() == in_files.labels.tolist() == [40, 0, 40, 20]
    assert in_memory.classes == in_files.classes == ("a", "b")
    for place, number in enumerate(chosen):
        assert torch.equal(in_memory.load(place), memory_source().load(number))
        assert in_files.paths[place] == Path(f"{number}.png")


def test_unlabelled_images_stay_so_when_picked():
    assert pick(FileSource((Path("a"), Path("b")), None, ()), torch.tensor([1])) == FileSource((Path("b"),), None, ())


@pytest.mark.parametrize(("count", "left"), [(0, 6), (1, 1), (5, 5), (6, 6), (7, 6)])
@pytest.mark.parametrize("source", [memory_source, file_source])
def test_the_first_images_of_a_source(source: Callable[[], MemorySource | FileSource], count: int, left: int):
    assert first(source(), count).labels.tolist() == [10 * number for number in range(left)]


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, folder: str, state: str
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
