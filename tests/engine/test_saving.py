"""Saving and going on: when, what is kept, and what is gone on from."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from groco_cli import console
from groco_cli.engine import pretrain, run_lock, saving
from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.every import Every
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError, UsageError
from groco_cli.models import load_encoder
from support.runs import assert_equal, assert_saved_is_good, at_step, changed, resumed, steps, stopped, whole


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("1", [0, 3, 6]),
        ("2", [0, 6]),
        ("2steps", [0, 2, 4, 6]),
        ("4steps", [0, 4, 6]),
        ("1min", [0, 2, 4, 6]),
        ("1,1min", [0, 2, 3, 5, 6]),  # the minutes begin anew at step 3
        ("5steps, 1", [0, 3, 5, 6]),
        ("1,30min", [0, 3, 6]),
    ],
)
def test_it_is_saved_when_asked_and_at_the_end(quick, monkeypatch, every, expected):
    clock, saved, original = SimpleNamespace(steps=0), [], TrainingState.save
    step = Report.step

    def ticking(self: Report, now: int) -> None:
        clock.steps = now
        step(self, now)

    def recorded(self: TrainingState, path: Path) -> None:
        saved.append(self.step)
        original(self, path)

    monkeypatch.setattr(Report, "step", ticking)
    monkeypatch.setattr(TrainingState, "save", recorded)
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: 40.0 * clock.steps))
    pretrain(changed(quick, save_every=every))
    assert saved == expected


def test_an_hour_is_never_lost_by_default():
    default = Every.parse_several(PretrainSettings().run.save_every, "--save-every")
    assert [any(every.due(step, 1000, seconds) for every in default) for step, seconds in [(1, 1800), (1000, 1)]] == [
        True,
        True,
    ]


def test_how_often_it_is_saved_and_what_is_kept_changes_nothing_in_the_training(quick):
    often = RunFolder(pretrain(changed(quick, save_every="1steps", keep=1, milestones=1)))
    assert_equal(often, whole(changed(quick, save_every="2")))


@pytest.mark.parametrize(("keep", "expected"), [(1, [6]), (2, [6, 5]), (4, [6, 5, 4, 3])])
def test_the_newest_states_are_kept(quick, keep, expected):
    assert steps(RunFolder(pretrain(changed(quick, save_every="1step", keep=keep)))) == expected


def test_an_older_state_is_deleted_only_once_the_newer_is_on_disk(quick, monkeypatch):
    folder, seen, original = RunFolder(Path(quick.run.output)), [], TrainingState.save

    def observed(self: TrainingState, path: Path) -> None:
        seen.append(steps(folder))
        original(self, path)
        seen.append(steps(folder))

    monkeypatch.setattr(TrainingState, "save", observed)
    pretrain(changed(quick, keep=1))
    assert seen == [[], [0], [0], [3, 0], [3], [6, 3]]


@pytest.mark.parametrize(("milestones", "expected"), [(0, [3]), (100, [3]), (1, [0, 1, 2, 3]), (2, [1, 3])])
def test_milestones_and_the_last_epoch_keep_their_checkpoints(quick, milestones, expected):
    settings = override(changed(quick, milestones=milestones, save_every="3"), {"optim": {"epochs": 4}}, "test")
    folder = RunFolder(pretrain(settings))
    epochs = [f"epoch-{number:04d}" for number in expected]
    assert sorted(path.stem for path in folder.path.glob("checkpoints/*")) == [*epochs, "latest"]
    assert [load_encoder(folder.checkpoint(number)).metadata.epoch for number in expected] == [n + 1 for n in expected]
    torch.testing.assert_close(load_file(folder.latest), load_file(folder.checkpoint(3)), rtol=0, atol=0)


def damage(path: Path) -> None:
    """Flip one bit amid the weights: what torch.load alone would not notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_state_is_skipped_by_name_and_the_run_goes_on_from_the_one_before(quick, monkeypatch):
    settings = changed(quick, save_every="2steps", keep=2)
    folder, warnings = stopped(settings, 5), []
    assert steps(folder) == [5, 4]
    damage(folder.state(5))
    monkeypatch.setattr(console, "warn", warnings.append)
    resumed(settings)
    assert [str(folder.state(5)) in warning and "damaged" in warning for warning in warnings] == [True]
    assert steps(folder) == [6, 4], "the damaged one is gone, and did not count"
    assert_equal(folder, whole(settings))


@pytest.mark.parametrize("place", ["state", "folder"])
def test_what_cannot_be_read_for_the_moment_ends_the_resume_and_is_neither_skipped_nor_deleted(
    quick, monkeypatch, place
):
    settings = changed(quick, save_every="2steps", keep=2)
    folder = stopped(settings, 5)
    fails = folder.state(5) if place == "state" else folder.path / "state"
    name = "read_bytes" if place == "state" else "iterdir"
    original = getattr(Path, name)

    def failing(path: Path) -> object:
        if path == fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, failing)
        with pytest.raises(GrocoError, match=f"cannot read {fails}: Input/output error"):
            resumed(settings)
    assert steps(folder) == [5, 4]
    assert_equal(resumed(settings), whole(settings))


def test_where_no_state_is_whole_the_run_is_not_begun_again_over_its_checkpoints(quick):
    folder = stopped(quick, 5)
    before = folder.latest.read_bytes()
    for path in folder.states:
        damage(path)
    with pytest.raises(GrocoError, match="none of its states is whole"):
        resumed(quick)
    for path in folder.states:
        path.unlink()
    with pytest.raises(GrocoError, match="its state is gone"):
        resumed(quick)
    assert folder.latest.read_bytes() == before


def test_a_run_killed_before_its_first_state_begins_anew(quick):
    folder = RunFolder(Path(quick.run.output))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(quick)
    assert folder.settings.exists()
    assert folder.states == []
    assert_equal(resumed(quick), whole(quick))


def test_a_state_of_another_run_is_refused(quick):
    folder = stopped(quick, 4)
    other = whole(override(quick, {"optim": {"learning_rate": 0.2}}, "test"))
    shutil.copy(other.states[0], folder.states[0].parent)
    with pytest.raises(UsageError, match=r"run with optim\.learning_rate = 0\.2, not 0\.1"):
        resumed(quick)


def test_how_it_is_saved_may_change_when_it_is_resumed_but_not_what_is_learnt(quick):
    folder = stopped(quick, 4)
    free = resume_settings(folder.settings, {"run": {"save_every": "1step", "keep": 5, "milestones": 1}})
    assert (free.run.save_every, free.run.keep, free.run.milestones) == ("1step", 5, 1)
    with pytest.raises(UsageError, match=r"run\.seed = 0, not 1"):
        resume_settings(folder.settings, {"run": {"seed": 1}})


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(quick):
    folder = stopped(quick, 4)
    left = [
        folder.path / name for name in ("state/.step-000000005-ab_3xyz9.pt", "checkpoints/.latest-abcdefgh.safetensors")
    ]
    own = [folder.path / ".notes.txt", folder.path / "state/.keep"]
    for path in left + own:
        path.write_text("half")
    resumed(quick)
    assert [path.exists() for path in left + own] == [False, False, True, True]


def test_a_second_run_in_the_same_folder_is_refused_and_does_the_first_no_harm(quick, monkeypatch):
    folder, refused = RunFolder(Path(quick.run.output)), []
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.0)

    def begin_a_second() -> None:
        before = folder.metrics.read_bytes()
        with pytest.raises(GrocoError, match=f"is in use by process {os.getpid()}@") as caught:
            resumed(quick)
        refused.append(caught.value)
        assert folder.metrics.read_bytes() == before != b""

    with monkeypatch.context() as patch:
        at_step(patch, 4, begin_a_second)
        pretrain(quick)
    assert len(refused) == 1
    assert_equal(folder, whole(quick))
    assert_saved_is_good(folder, newest=6)
