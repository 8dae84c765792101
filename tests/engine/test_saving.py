"""Saving and going on: when, what is kept, and that nothing that goes wrong costs what was saved before."""

import errno
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import nn

from groco_cli import console, devices
from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import checkpoint, pretrain, run_lock, saving
from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.every import Every
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import LossSettings, PretrainSettings
from groco_cli.engine.step import TrainingStep
from groco_cli.errors import GrocoError, UsageError
from groco_cli.models import load_encoder

TIMES = ("images_per_second", "waiting")


def changed(settings: PretrainSettings, **run: object) -> PretrainSettings:
    return override(settings, {"run": run}, "test")


def whole(settings: PretrainSettings) -> RunFolder:
    """The same run, left alone."""
    return RunFolder(pretrain(changed(settings, output=str(Path(settings.run.output).with_name("whole")))))


def resumed(settings: PretrainSettings) -> RunFolder:
    folder = RunFolder(Path(settings.run.output))
    pretrain(resume_settings(folder.settings, {}), resume=folder)
    return folder


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], object]) -> None:
    """Do something while that step is reported, before anything is saved of it."""
    original = Report.step

    def reported(self: Report, now: int) -> None:
        original(self, now)
        if now == step:
            action()

    monkeypatch.setattr(Report, "step", reported)


def stopped(settings: PretrainSettings, step: int) -> RunFolder:
    """A run that a signal stopped after this step."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            pretrain(settings)
    return RunFolder(Path(settings.run.output))


def steps(folder: RunFolder) -> list[int]:
    """The steps whose states are kept, newest first."""
    return [int(path.stem.removeprefix("step-")) for path in folder.states]


def assert_equal(a: RunFolder, b: RunFolder) -> None:
    """Weights, the optimiser's memory and metrics are the same bit for bit."""
    left, right = (torch.load(folder.states[0], weights_only=True) for folder in (a, b))
    torch.testing.assert_close(left["model"], right["model"], rtol=0, atol=0)
    torch.testing.assert_close(left["optimizer"], right["optimizer"], rtol=0, atol=0)
    assert (left["step"], left["settings"]) == (right["step"], right["settings"])
    torch.testing.assert_close(load_file(a.latest), load_file(b.latest), rtol=0, atol=0)
    lines = [[{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(f.metrics)] for f in (a, b)]
    assert lines[0] == lines[1] != []


def assert_saved_is_good(folder: RunFolder, newest: int) -> None:
    """What was saved at this step can be loaded, and nothing half written lies about."""
    assert steps(folder)[0] == newest
    for path in folder.states:
        state = torch.load(path, weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert all(parameter.isfinite().all() for parameter in load_encoder(folder.latest).parameters())
    assert {path.name for path in folder.path.rglob(".*")} <= {".lock"}


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


def test_a_run_of_before_there_were_several_states_resumes_bit_for_bit(quick):
    folder = stopped(quick, 4)
    newest, *older = folder.states
    state = torch.load(newest, weights_only=True)
    del state["settings"], state["overflows"], state["data"]
    state |= {"random": torch.get_rng_state(), "random_cuda": []}  # now it follows from the step
    torch.save(state, folder.path / "state/latest.pt")
    for path in (newest, *older):
        path.unlink()
    toml = folder.settings.read_text()
    assert 'save_every = "1,30min"\nkeep = 2\nmilestones = 100\n' in toml
    folder.settings.write_text(toml.replace('save_every = "1,30min"\nkeep = 2\nmilestones = 100\n', "save_every = 1\n"))
    assert_equal(resumed(quick), whole(quick))


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


@pytest.fixture
def files(quick, tmp_path) -> PretrainSettings:
    """A quick run on 96 pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(96):
        Image.effect_noise((40, 36), 60 + number).convert("RGB").save(folder / f"{number}.png")
    data = {"data": str(folder), "subset": 0, "workers": 0}
    return override(quick, {"data": data, "views": {"augmentation": "small"}}, "test")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_data_folder_that_is_lost_in_mid_run_is_one_line_and_costs_nothing(files, monkeypatch, workers, on_bad_image):
    data = {"workers": workers, "on_bad_image": on_bad_image}
    settings = override(changed(files, save_every="1step"), {"data": data, "optim": {"epochs": 3}}, "test")
    folder, pictures = RunFolder(Path(settings.run.output)), Path(settings.data.data)
    monkeypatch.setattr(console, "warn", lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, lambda: pictures.rename(pictures.with_name("away")))
        with pytest.raises(GrocoError, match=r"cannot (be )?decode") as caught:
            pretrain(settings)
    assert "\n" not in caught.value.message
    assert str(pictures) in caught.value.message
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


@pytest.fixture
def drop_path(monkeypatch) -> None:
    """Encoders that leave out half of their residual branches at random."""
    create = timm.create_model

    def created(*names: object, **options: object) -> nn.Module:
        model = create(*names, drop_path_rate=0.5, **options)
        assert any(isinstance(module, DropPath) and module.drop_prob for module in model.modules())
        return model

    monkeypatch.setattr(timm, "create_model", created)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("drop_path")
def test_an_encoder_that_draws_at_random_resumes_bit_for_bit_in_mid_epoch(files, workers):
    settings = override(files, {"model": {"arch": "test_vit"}, "data": {"workers": workers}}, "test")
    stopped(settings, 2)
    torch.manual_seed(12345)  # whatever happens in between
    folder = resumed(settings)
    assert_equal(folder, whole(settings))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_from_files_resumes_bit_for_bit_in_mid_epoch_whatever_decodes(files, workers):
    settings = override(files, {"data": {"workers": workers}}, "test")
    folder = stopped(settings, 2)
    other = resume_settings(folder.settings, {"data": {"workers": 1 - workers}})
    pretrain(other, resume=folder)
    assert_equal(folder, whole(settings))


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("loss", ["groco", "infonce", "triplet"])
@pytest.mark.parametrize("method", ["siamese", "mocov3"])
def test_every_loss_and_optimiser_resumes_bit_for_bit_in_mid_epoch(quick, method, loss, optimizer):
    changes = {"loss": {"loss": loss}, "optim": {"optimizer": optimizer}, "method": {"method": method}}
    settings = override(replace(quick, loss=LossSettings()), changes, "test")
    stopped(settings, 4)
    folder = resumed(settings)
    assert_equal(folder, whole(settings))
    assert load_encoder(folder.latest).metadata.method == (loss if method == "siamese" else f"mocov3 with {loss}")


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
