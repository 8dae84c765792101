"""A disk, a folder or a loss that fails in mid-run is one line, and costs nothing that was saved before."""

import errno
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groco_cli import console, devices
from groco_cli.engine import checkpoint, pretrain
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.step import TrainingStep
from groco_cli.errors import GrocoError, UsageError
from groco_cli.models import load_encoder
from support.runs import assert_equal, assert_saved_is_good, at_step, changed, resumed, steps, stopped, whole


def full_disk(at: int) -> Callable[..., None]:
    """What torch.save does where the disk fills up, from this step on."""
    original = torch.save

    def save(state: dict[str, object], file: object) -> None:
        if state["step"] < at:
            return original(state, file)
        file.write(b"half a state")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return save


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_saved(quick):
    settings = changed(quick, save_every="2steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full_disk(at=4))
        with pytest.raises(GrocoError, match=r"cannot write .*step-000000004\.pt: No space left") as caught:
            pretrain(settings)
    assert "saved is step 2" in caught.value.message
    assert "--resume" in caught.value.hint
    folder = RunFolder(Path(settings.run.output))
    assert_saved_is_good(folder, newest=2)
    assert_equal(resumed(settings), whole(settings))


def test_a_disk_that_takes_no_more_is_one_line_in_truth_too(quick):
    """The state grows once AdamW has moments: a limit in between fails the first save that matters."""
    quick = override(quick, {"optim": {"optimizer": "adamw", "learning_rate": 1e-3}}, "test")
    small = RunFolder(pretrain(changed(quick, output=quick.run.output + "-small", keep=9)))
    first, later = (small.state(step).stat().st_size for step in (0, 3))
    assert later > first + 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((first + later) // 2, before[1]))
    try:
        with pytest.raises(GrocoError, match=r"cannot write .*step-000000003\.pt: File too large; saved is step 0"):
            pretrain(quick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_saved_is_good(RunFolder(Path(quick.run.output)), newest=0)
    assert_equal(resumed(quick), whole(quick))


@pytest.mark.parametrize("how", ["read-only", "gone"])
def test_a_state_folder_that_takes_nothing_more_is_one_line_and_costs_nothing(quick, how):
    settings = changed(quick, save_every="2steps")
    folder, aside = RunFolder(Path(settings.run.output)), Path(settings.run.output).with_name("aside")
    place = folder.path / "state"

    def lose() -> None:
        if how == "read-only":
            place.chmod(0o555)
            if os.access(place, os.W_OK):
                place.chmod(0o755)
                pytest.skip("root may write everywhere")
        else:
            place.rename(aside)
            place.touch()

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, lose)
        with pytest.raises(GrocoError, match=r"cannot write .*; saved is step 2"):
            pretrain(settings)
    if how == "read-only":
        place.chmod(0o755)
    else:
        place.unlink()
        aside.rename(place)
    assert_saved_is_good(folder, newest=2)
    assert_equal(resumed(settings), whole(settings))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_data_folder_that_is_lost_in_mid_run_is_one_line_and_costs_nothing(files, monkeypatch, workers, on_bad_image):
    data = {"workers": workers, "on_bad_image": on_bad_image}
    settings = override(changed(files, save_every="1step"), {"data": data, "optim": {"epochs": 3}}, "test")
    folder, pictures = RunFolder(Path(settings.run.output)), Path(settings.data.data)
    monkeypatch.setattr(console, "warn", lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, lambda: pictures.rename(pictures.with_name("away")))
        with pytest.raises(GrocoError, match=f"^the images in {pictures}/ are gone$") as caught:
            pretrain(settings)
    assert caught.value.hint.endswith("a run with --resume")
    pictures.with_name("away").rename(pictures)
    assert_saved_is_good(folder, newest=steps(folder)[0])
    assert steps(folder)[0] >= 4
    assert_equal(resumed(settings), whole(settings))


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_a_run_whose_images_are_not_as_many_as_before_is_not_gone_on_with(files, change):
    folder, pictures = stopped(files, 2), Path(files.data.data)
    aside = pictures.with_name("95.png")
    if change == "fewer":
        (pictures / "95.png").rename(aside)
    else:
        shutil.copy(pictures / "95.png", pictures / "96.png")
    there = 95 if change == "fewer" else 97
    with pytest.raises(UsageError, match=f"on 96 training images, and now there are {there}") as caught:
        resumed(files)
    assert "put the images back" in caught.value.hint
    assert steps(folder) == [2, 0]
    if change == "fewer":
        aside.rename(pictures / "95.png")
    else:
        (pictures / "96.png").unlink()
    assert_equal(resumed(files), whole(files))


def test_a_run_whose_images_were_moved_goes_on_where_they_lie_now(files, tmp_path, monkeypatch):
    """Begun with a relative path, as from another folder; other images are refused, though they are as many."""
    pictures = Path(files.data.data)
    monkeypatch.chdir(tmp_path)
    folder = stopped(override(files, {"data": {"data": pictures.name}}, "test"), 2)
    assert resume_settings(folder.settings, {}).data.data == str(pictures)
    monkeypatch.chdir("/")
    moved = pictures.with_name("moved")
    pictures.rename(moved)
    settings = resume_settings(folder.settings, {"data": {"data": str(moved)}})
    (moved / "95.png").rename(moved / "96.png")
    with pytest.raises(UsageError, match="on images of other names"):
        pretrain(settings, resume=folder)
    (moved / "96.png").rename(moved / "95.png")
    pretrain(settings, resume=folder)
    assert resume_settings(folder.settings, {}).data.data == str(moved)
    assert load_encoder(folder.latest).metadata.data == str(moved)
    assert_equal(folder, whole(settings))


def nan_from(step: int) -> Callable[..., object]:
    """A step whose loss is no number from one on; the weights stay as they are."""
    original = TrainingStep.__call__

    def stepped(self: TrainingStep, *arguments: object, **named: object) -> object:
        loss, compared = original(self, *arguments, **named)
        return (loss * float("nan") if self.state.step >= step else loss), compared

    return stepped


@pytest.mark.parametrize(
    ("run", "kept"),
    [
        ({"save_every": "1steps", "log_every": 100}, 4),
        ({"save_every": "2steps", "log_every": 100}, 4),
        ({"save_every": "1", "log_every": 100}, 3),
        ({"save_every": "1", "log_every": 1}, 3),
        ({"save_every": "9", "log_every": 6}, 0),
    ],
)
def test_a_loss_that_is_no_number_names_its_step_and_what_is_kept(quick, monkeypatch, run, kept):
    monkeypatch.setattr(TrainingStep, "__call__", nan_from(5))
    with pytest.raises(GrocoError, match="the loss is nan") as caught:
        pretrain(changed(quick, **run))
    message, folder = caught.value.message, RunFolder(Path(quick.run.output))
    before = f"{folder.latest} of step {kept}" if kept else "no checkpoint"
    rate = 0.1 * 32 / 256 * (1 + math.cos(math.pi / 3)) / 2  # a third of the way from the end of warm-up
    cause = f"the learning rate was {rate:.3g}, perhaps too high"
    assert message == f"the loss is nan in step 5; {cause}; {before} is from before"
    assert "--lr" in caught.value.hint
    assert steps(folder)[0] == kept
    if kept:
        assert_saved_is_good(folder, newest=kept)


def test_weights_that_are_no_numbers_are_never_saved_not_even_when_asked_to_stop(quick, monkeypatch):
    original = TrainingStep.__call__

    def stepped(self: TrainingStep, *arguments: object, **named: object) -> object:
        result = original(self, *arguments, **named)
        if self.state.step == 5:
            next(self.model.parameters()).data.fill_(float("inf"))
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(TrainingStep, "__call__", stepped)
    with pytest.raises(GrocoError, match="the weights are not finite after step 5"):
        pretrain(quick)
    assert_saved_is_good(RunFolder(Path(quick.run.output)), newest=3)


def test_overflows_of_fp16_are_counted_and_not_fatal(quick, monkeypatch):
    """Gradients overflow at two steps: these change nothing, and the scale is halved for what follows."""
    original = TrainingStep.__call__

    def stepped(self: TrainingStep, *arguments: object, **named: object) -> object:
        if self.state.step not in (0, 3):
            return original(self, *arguments, **named)
        parameter = next(self.model.parameters())
        before = parameter.clone()
        hook = parameter.register_hook(lambda gradient: gradient * float("inf"))
        result = original(self, *arguments, **named)
        hook.remove()
        assert torch.equal(parameter, before)
        return result

    monkeypatch.setattr(TrainingStep, "__call__", stepped)
    monkeypatch.setattr(devices, "choose_precision", lambda *_: "fp16")
    monkeypatch.setattr(devices, "autocast", lambda *_: torch.autocast("cpu", torch.bfloat16))  # fp16 is slow there
    folder = stopped(quick, 5)
    resumed(quick)
    assert [line["overflows"] for line in read_metrics(folder.metrics)] == [1, 1, 1, 2, 2, 2]
    assert torch.load(folder.states[0], weights_only=True)["scaler"]["scale"] == 2.0**14
    assert_equal(folder, whole(quick))
