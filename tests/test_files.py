import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from groco_cli.errors import GrocoError, UsageError
from groco_cli.files import atomic_write, check_picture, check_writable, remove_leftovers


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that was written earlier."""
    path = tmp_path / "settings.toml"
    path.write_text("old")
    return path


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_takes_its_name_only_once_it_is_whole(old: Path):
    with atomic_write(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"
    assert names(old.parent) == ["settings.toml"]


def test_folders_are_made(tmp_path: Path):
    path = tmp_path / "runs/one/checkpoints/latest.safetensors"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"weights")
    assert path.read_bytes() == b"weights"


def test_the_temporary_file_lies_hidden_beside_it_with_its_ending(old: Path):
    with atomic_write(old) as temporary:
        assert temporary.parent == old.parent
        assert temporary.suffix == ".toml"
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(old: Path, failure: BaseException):
    with pytest.raises(type(failure)) as caught, atomic_write(old) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise failure
    assert caught.value is failure
    assert old.read_text() == "old"
    assert names(old.parent) == ["settings.toml"]


@pytest.mark.parametrize(
    ("failure", "shown"),
    [(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), GrocoError), (ValueError("bad"), ValueError)],
    ids=["full disk", "error"],
)
def test_what_cannot_be_tidied_up_hides_no_error(old: Path, monkeypatch, failure: Exception, shown: type[Exception]):
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(shown, match=r"No space left|bad"), atomic_write(old):
        raise failure
    assert old.read_text() == "old"


def test_a_failure_where_there_was_no_file_leaves_none(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "new.toml"):
        _ = 1 / 0
    assert names(tmp_path) == []


def test_a_full_disk_is_told_in_one_line(old: Path):
    with pytest.raises(GrocoError, match=r"cannot write .*settings\.toml: No space left") as caught, atomic_write(old):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert old.read_text() == "old"
    assert names(old.parent) == ["settings.toml"]


def test_the_file_is_as_readable_as_any_other(tmp_path: Path, umask: int):
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    with atomic_write(ours) as temporary:
        temporary.touch()
    plain.touch()
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask, "the process's own umask was changed"


def test_a_folder_that_is_a_file_is_told(old: Path):
    path = old / "run/latest.safetensors"
    with pytest.raises(GrocoError, match=r"cannot write .*latest\.safetensors"), atomic_write(path):
        pytest.fail("there is no place to write to")


def test_a_name_that_a_folder_has_is_told(tmp_path: Path):
    (tmp_path / "taken/inside").mkdir(parents=True)
    with pytest.raises(GrocoError, match=r"cannot write .*taken"), atomic_write(tmp_path / "taken") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["taken"]


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path):
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write everywhere")
    with (
        pytest.raises(GrocoError, match=r"cannot write .*x\.toml: Permission denied"),
        atomic_write(tmp_path / "x.toml"),
    ):
        pytest.fail("there is no place to write to")


def test_contents_are_on_disk_before_the_name_and_the_name_before_the_end(old: Path, monkeypatch: pytest.MonkeyPatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        done.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        done.append(("rename", path.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    with atomic_write(old) as temporary:
        temporary.write_text("new")
    file, folder = old.stat().st_ino, old.parent.stat().st_ino
    assert done == [("flush", file), ("rename", file), ("flush", folder)]


def test_whether_a_file_can_be_written_is_found_out_without_a_trace(tmp_path: Path):
    for place in (tmp_path / "page.html", tmp_path / "new/deeper/page.html"):
        check_writable(place)
        assert names(tmp_path) == []
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "file/page.html", tmp_path / "file/new/page.html"):
        with pytest.raises(GrocoError, match="cannot write"):
            check_writable(place)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path):
    for name in ("step-000000012.pt", "settings.toml", "latest.safetensors"):
        with suppress(ZeroDivisionError), atomic_write(tmp_path / name) as temporary:
            temporary.rename(tmp_path / "aside")  # so that the end of the block cannot delete it
            left = temporary
            _ = 1 / 0
        (tmp_path / "aside").rename(left)
    for name in (".hidden", ".notes.txt", "step-000000012.pt"):
        (tmp_path / name).touch()
    os.utime(left, (0, 0))
    remove_leftovers(tmp_path / "absent")
    before = names(tmp_path)
    remove_leftovers(tmp_path, like=".*.toml", older=3600)
    assert names(tmp_path) == before
    remove_leftovers(tmp_path, older=3600)
    assert set(before) - set(names(tmp_path)) == {left.name}
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", ".notes.txt", "step-000000012.pt"]


def test_a_figure_whose_ending_says_no_format_is_refused():
    check_picture(Path("knn.PDF"), "--figure")
    with pytest.raises(UsageError, match=r"--figure knn\.bmp has no known ending") as refused:
        check_picture(Path("knn.bmp"), "--figure")
    assert refused.value.hint == "it may be .png, .svg, .pdf"
