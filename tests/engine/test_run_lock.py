"""A run's folder is held by one process, which others are told, and free again however that one ended."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest
from filelock import FileLock

from groco_cli import console
from groco_cli.engine import run_lock
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.run_lock import held
from groco_cli.errors import GrocoError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.0)
    return RunFolder(tmp_path)


def holder(folder: RunFolder) -> subprocess.Popen[str]:
    """Another process that holds the folder until it is told to let go."""
    program = (
        "import sys; from pathlib import Path; from groco_cli.engine.run_folder import RunFolder\n"
        "from groco_cli.engine.run_lock import held\n"
        "with held(RunFolder(Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["by itself", "kill -9"])
def test_another_process_is_named_and_lets_go_however_it_ends(folder, end):
    other = holder(folder)
    with pytest.raises(GrocoError) as caught, held(folder):
        pytest.fail("two at a time")
    assert caught.value.message == f"{folder.path} is in use by process {other.pid}@{socket.gethostname()}"
    assert str(folder.lock) in caught.value.hint
    if end == "kill -9":
        other.kill()
        assert other.wait() == -signal.SIGKILL
    else:
        other.communicate("\n")
        assert other.returncode == 0
    with held(folder):
        assert folder.lock_holder.read_text() == f"{os.getpid()}@{socket.gethostname()}"
    assert not folder.lock_holder.exists()


def test_it_is_let_go_of_after_an_error_too(folder):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), held(folder):
            _ = 1 / 0
    assert {path.name for path in folder.path.iterdir()} <= {".lock"}


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(GrocoError, match="cannot write"), held(RunFolder(tmp_path / "file")):
        pytest.fail("there is no place for the lock")


@pytest.mark.parametrize(
    "error",
    [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")],
    ids=["old filelock", "ENOLCK"],
)
def test_where_nothing_can_be_locked_it_is_said_and_the_run_goes_on(folder, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    warnings: list[str] = []
    monkeypatch.setattr(FileLock, "acquire", fail)
    monkeypatch.setattr(console, "warn", warnings.append)
    with held(folder):
        pass
    assert [str(folder.path) in warning for warning in warnings] == [True]
