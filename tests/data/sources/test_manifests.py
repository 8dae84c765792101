"""Lists of images: paths, labels and splits, and the lines that an error names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groco_cli.errors import GrocoError, UsageError

Draw = Callable[..., Path]
PICTURES = ("a/1.png", "a/2.png", "b, c/3.png", "4.png")


@pytest.fixture
def manifest(picture_folder: Draw) -> Callable[[str, str], Path]:
    """Writes a manifest beside four pictures."""
    folder = picture_folder(*PICTURES)

    def write(name: str, text: str) -> Path:
        (folder / name).write_bytes(text.encode())
        return folder / name

    return write


def relative(source, manifest: Path) -> list[str]:
    return [path.relative_to(manifest.parent).as_posix() for path in source.paths]


def test_a_text_has_one_path_a_line(opened, manifest):
    path = manifest("some.txt", "4.png\r\n\nb, c/3.png\n  a/1.png\n")
    dataset = opened(path)
    assert relative(dataset.train, path) == ["4.png", "b, c/3.png", "a/1.png"]
    assert (dataset.train.labels, dataset.train.classes, dataset.test) == (None, (), None)


def test_a_path_may_be_absolute(opened, manifest):
    path = manifest("some.txt", "")
    path.write_text(f"{path.parent / '4.png'}\n")
    assert relative(opened(path).train, path) == ["4.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("some.csv", 'a/1.png,dog\n"b, c/3.png", cat\n4.png,dog\n'),
        ("some.csv", '\ufeffpath,label\na/1.png,dog\n"b, c/3.png",cat\n4.png,dog\n'),
        ("some.CSV", 'width,LABEL,Path\n8,dog,a/1.png\n8,cat,"b, c/3.png"\n8,dog,4.png\n'),
        ("some.tsv", "a/1.png\tdog\nb, c/3.png\tcat\n4.png\tdog\n"),
    ],
)
def test_columns_are_path_and_label(opened, manifest, name: str, text: str):
    path = manifest(name, text)
    source = opened(path).train
    assert relative(source, path) == ["a/1.png", "b, c/3.png", "4.png"]
    assert (source.labels.tolist(), source.classes) == ([1, 0, 1], ("cat", "dog"))


def test_labels_that_are_numbers_are_taken_as_they_stand(opened, manifest):
    source = opened(manifest("some.csv", "a/1.png,10\na/2.png,2\n")).train
    assert source.labels.tolist() == [10, 2]
    assert source.labels.dtype == torch.int64
    assert source.classes == tuple(map(str, range(11)))


def test_one_name_makes_all_labels_names(opened, manifest):
    source = opened(manifest("some.csv", "a/1.png,10\na/2.png,2b\n")).train
    assert (source.labels.tolist(), source.classes) == ([0, 1], ("10", "2b"))


@pytest.mark.parametrize("held_out", ["val", "test", "Validation"])
def test_a_split_makes_two_parts(opened, manifest, held_out: str):
    path = manifest("s.csv", f"path,split,label\na/1.png,train,x\na/2.png,{held_out},y\n4.png,TRAIN,y\n")
    dataset = opened(path)
    assert relative(dataset.train, path) == ["a/1.png", "4.png"]
    assert relative(dataset.test, path) == ["a/2.png"]
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 1], [1])


def test_validation_comes_before_test_and_what_is_left_over_is_said(opened, manifest, capsys):
    path = manifest("s.csv", "a/1.png,x,train\na/2.png,x,test\n4.png,x,val\n")
    assert relative(opened(path).test, path) == ["4.png"]
    assert "val is held out; test (1 image) is not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a/1.png,x\na/2.png,\n4.png\n", "no label, others have one (lines 2, 3; 2 in all)"),
        ("a/1.png,x,train\na/2.png,x,\n", "no split, others have one (line 2; 1 in all)"),
        ("a/1.png,x,train\na/2.png,x,dev\n", "a split that is none of train, val, test, validation (line 2;"),
        ("a/1.png,x,val\n", "no line has the split train"),
        ("a/1.png,x,train,y\n", "more columns than path, label, split (line 1;"),
        ("a/1.png,x\n,x\n", "no path (line 2;"),
        ("path,label\n", "no image in it"),
        ("", "no image in it"),
        ("a/1.png,123456789012345678901234567890\n", "a label beyond reason (line 1;"),
        ('a/1.png,"x\n', "is no list of images"),
    ],
)
def test_lines_that_make_no_sense_are_named(refused, manifest, text: str, told: str):
    assert told in refused(manifest("bad.csv", text), UsageError).message


def test_bytes_are_no_list(refused, manifest):
    path = manifest("bad.txt", "")
    path.write_bytes(b"\xff\xfe\x00")
    assert "no list of images" in refused(path, UsageError).message


def test_a_class_that_training_lacks_is_told(refused, manifest):
    path = manifest("s.csv", "a/1.png,x,train\na/2.png,x,train\n4.png,y,val\n")
    assert "class y not among" in refused(path).message


def test_missing_files_are_all_counted_and_the_first_named(refused, manifest):
    path = manifest("some.txt", "4.png\nno-1\nno-2\nno-3\nno-4\na\n")
    message = refused(path).message
    assert "5 of 6 images are missing" in message
    assert f"{path.parent / 'no-1'} (line 2)" in message
    assert "no-3 (line 4), …" in message


def test_undecodable_images_are_told(refused, manifest):
    assert "no decodable image" in refused(manifest("self.txt", "self.txt\n"), GrocoError).message


def test_nothing_in_a_manifest_is_run_or_fetched(refused, manifest, tmp_path: Path):
    path = manifest("evil.txt", f"pipe:touch {tmp_path / 'ran'}\nhttps://example.com/1.jpg\n")
    assert "2 of 2 images are missing" in refused(path).message
    assert not (tmp_path / "ran").exists()


def test_a_list_that_may_not_be_read_is_told(manifest, refused, monkeypatch: pytest.MonkeyPatch):
    path = manifest("a.txt", "4.png")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    error = refused(path)
    assert "cannot be read (Permission denied)" in error.message
    assert "list" in error.hint
