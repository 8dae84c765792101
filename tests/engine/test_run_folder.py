"""Where a run's files lie: which checkpoint a path means, and what is typed to go on with a run."""

import shlex
from pathlib import Path

import pytest

from groco_cli.engine.run_folder import RunFolder, checkpoint_at, chosen_checkpoints
from groco_cli.errors import UsageError


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has a checkpoint."""
    folder = RunFolder(tmp_path / "a run.v2")
    folder.latest.parent.mkdir(parents=True)
    folder.latest.touch()
    return folder


def test_a_run_s_folder_means_its_latest_checkpoint_and_a_file_itself(run: RunFolder, monkeypatch):
    other = run.checkpoint(3)
    other.touch()
    for named, meant in ((run.path, run.latest), (run.latest.parent, run.latest), (run.latest, run.latest)):
        assert checkpoint_at(named) == meant
    assert chosen_checkpoints([run.path, other]) == [run.latest, other]
    for inside, meant in ((run.path, run.latest), (run.latest.parent, run.latest)):
        monkeypatch.chdir(inside)
        assert checkpoint_at(Path()).resolve() == meant


def test_what_is_no_run_is_left_for_its_reader_to_refuse(tmp_path: Path):
    for path in (tmp_path, tmp_path / "absent", Path("x" * 5000)):
        assert checkpoint_at(path) == path


def test_without_a_name_the_newest_run_is_meant(run: RunFolder, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no run under runs/"):
        chosen_checkpoints(None)
    Path("runs").mkdir()
    run.path.rename("runs/one")
    assert chosen_checkpoints([]) == [Path("runs/one/checkpoints/latest.safetensors")]


def test_the_command_to_go_on_with_reads_the_path_as_one_word(run: RunFolder):
    assert shlex.split(run.resume_command) == ["groco", "pretrain", "--resume", "--output", str(run.path)]
