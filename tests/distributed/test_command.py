"""What a command is given by `over_processes`, alone and among others; and who speaks when it is stopped."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from groco_cli.distributed import launch, peers
from groco_cli.distributed.command import over_processes
from groco_cli.distributed.launch import STOP_FILE
from groco_cli.distributed.peers import Peers
from groco_cli.errors import UsageError


@pytest.fixture
def given() -> list[dict]:
    return []


@pytest.fixture
def command(given):
    @over_processes
    def score(
        name: str, device: str | None = None, gpus: int | None = None, processes: int | None = None, workers=None
    ) -> None:
        """Score."""
        given.append({"name": name, "device": device, "workers": workers})

    return lambda **options: score(**{"device": "cpu", "gpus": None, "processes": None, "workers": None} | options)


def among_two(monkeypatch, rank: int) -> None:
    @contextmanager
    def joined(wanted):
        yield Peers(device=torch.device("cpu"), rank=rank, world=2, sharing=2)

    monkeypatch.setattr(launch, "started", lambda wanted, **how: False)
    monkeypatch.setattr(peers, "joined", joined)


def test_alone_a_command_runs_once_on_its_device(command, given):
    command(name="a")
    command(name="b", workers=3)
    assert given == [{"name": "a", "device": "cpu", "workers": 0}, {"name": "b", "device": "cpu", "workers": 3}]


def test_a_command_that_was_started_elsewhere_is_done_here(command, given, monkeypatch):
    wanted = []
    monkeypatch.setattr(launch, "started", lambda settings, **how: wanted.append((settings, how)) or True)
    command(name="a", processes=3)
    assert given == []
    assert (wanted[0][0].processes, wanted[0][1]) == (3, {"patient": False})


def test_what_contradicts_itself_is_a_mistake(command, given):
    with pytest.raises(UsageError, match="--gpus 2 and --device cpu contradict each other"):
        command(name="a", gpus=2)
    assert given == []


def stopped(monkeypatch, rank: int, file: Path | None) -> BaseException:
    """What a command that gets SIGTERM among others ends with."""
    among_two(monkeypatch, rank)
    if file:
        monkeypatch.setenv(STOP_FILE, str(file))

    @over_processes
    def score(device: str, workers: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - KeyboardInterrupt and SystemExit are none else
        score(device="cpu", workers=0)
    assert signal.getsignal(signal.SIGTERM) == before
    return caught.value


def test_the_users_wish_to_stop_is_spoken_of_by_the_first(monkeypatch, tmp_path):
    (tmp_path / "stop").write_text("2")
    assert isinstance(stopped(monkeypatch, 0, tmp_path / "stop"), KeyboardInterrupt)
    other = stopped(monkeypatch, 1, tmp_path / "stop")
    assert isinstance(other, SystemExit)
    assert other.code == 130


def test_the_end_of_another_is_spoken_of_by_none(monkeypatch, tmp_path):
    for rank in (0, 1):
        ended = stopped(monkeypatch, rank, tmp_path / "stop")
        assert isinstance(ended, SystemExit)
        assert ended.code == 128 + signal.SIGTERM
