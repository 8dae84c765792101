"""Pre-training: what a run leaves behind, and that an interrupted one goes on as if nothing had happened."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from groco_cli import console
from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import curves, pretrain
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.errors import GrocoError, UsageError
from groco_cli.models import load_encoder

TIMES = ("images_per_second", "waiting")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(folder).latest)


def figures(folder: Path) -> list[dict[str, object]]:
    """The metrics, without what a clock says."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(RunFolder(folder).metrics)]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal while that step is reported."""
    original = Report.step

    def reported(self: Report, now: int) -> None:
        original(self, now)
        if now == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Report, "step", reported)


def test_a_run_leaves_settings_metrics_checkpoints_and_a_picture(tiny):
    folder = RunFolder(pretrain(tiny))
    assert sorted(p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()) == [
        ".lock",
        "checkpoints/epoch-0002.safetensors",
        "checkpoints/latest.safetensors",
        "metrics.jsonl",
        "plots/curves.png",
        "settings.toml",
        "state/step-000000006.pt",
        "state/step-000000009.pt",
    ]
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 10))
    assert [line["epoch"] for line in lines if line["kind"] == "knn"] == [0, 3]
    assert Image.open(folder.curves).size[0] > 1000
    encoder = load_encoder(folder.latest)
    assert (encoder.metadata.method, encoder.metadata.epoch, encoder.metadata.data) == ("groco", 3, "digits")
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, encoder.feature_dim)


def test_the_same_settings_give_the_same_weights_and_metrics(tiny, tmp_path):
    first = pretrain(tiny)
    second = pretrain(override(tiny, {"run": {"output": str(tmp_path / "again")}}, "test"))
    assert figures(first) == figures(second)
    assert_equal_weights(first, second)


def assert_equal_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize(  # within an epoch, at the end of one, in the last
    "step", [2, pytest.param(3, marks=pytest.mark.long), pytest.param(7, marks=pytest.mark.long)]
)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tiny, tmp_path, monkeypatch, step):
    settings = override(tiny, {"optim": {"learning_rate": 0.1}}, "test")
    whole = pretrain(override(settings, {"run": {"output": str(tmp_path / "whole")}}, "test"))
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Interrupted, match=f"after step {step} of 9") as caught:
            pretrain(settings)
    assert caught.value.exit_code == 130
    folder = RunFolder(Path(settings.run.output))
    load_encoder(folder.latest)
    torch.manual_seed(12345)  # whatever happens in between
    pretrain(resume_settings(folder.settings, {}), resume=folder)
    assert_equal_weights(folder.path, whole)
    assert figures(folder.path) == figures(whole)


def test_sigterm_stops_with_its_own_exit_code(tiny, monkeypatch):
    stop_at(monkeypatch, 4, signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        pretrain(tiny)
    assert caught.value.exit_code == 143


def test_signals_are_handled_as_before_once_a_run_is_over(tiny):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    pretrain(tiny)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_damaged_state_is_refused(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            pretrain(tiny)
    folder = RunFolder(Path(tiny.run.output))
    for state in folder.states:
        state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(GrocoError, match="none of its states is whole"):
        pretrain(tiny, resume=folder)


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(tiny):
    with pytest.raises(GrocoError, match="the loss is nan") as caught:
        pretrain(override(tiny, {"optim": {"learning_rate": 1e30, "epochs": 8}}, "test"))
    assert "times the recipe's, " in caught.value.message
    assert "--lr" in caught.value.hint
    folder = RunFolder(Path(tiny.run.output))
    if folder.latest.exists():
        assert all(tensor.isfinite().all() for tensor in weights(folder.path).values())


def test_multi_crop_and_several_views_train(tiny):
    views = {"views": 3, "local_views": 2, "local_size": 16}
    folder = pretrain(override(tiny, {"views": views, "optim": {"epochs": 1}}, "test"))
    assert {line["kind"] for line in read_metrics(RunFolder(folder).metrics)} == {"train", "knn"}


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optim", {"batch_size": 101}, "--batch-size 101 is more than the 100 training images"),
        ("loss", {"num_negatives": 63}, "--negatives 63 is more than the 62 that an anchor has in a batch of 32"),
        ("model", {"arch": "resnet5000"}, "--arch resnet5000: unknown architecture"),
        ("model", {"stem": "small"}, "--arch resnet10t: a small stem"),
        ("run", {"device": "cuda:77"}, "--device cuda:77"),
        ("run", {"precision": "fp16"}, "--precision fp16 needs a CUDA GPU"),
        ("data", {"data": "/no/such/folder"}, "/no/such/folder: no such folder or data set"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tiny, section, values, message):
    with pytest.raises(UsageError) as caught:
        pretrain(override(tiny, {section: values}, "test"))
    assert message in caught.value.message
    assert caught.value.hint
    assert not Path(tiny.run.output).exists()


def test_a_folder_that_holds_a_run_is_not_written_to(tiny):
    pretrain(tiny)
    before = weights(Path(tiny.run.output))
    with pytest.raises(UsageError, match="already holds a run"):
        pretrain(tiny)
    assert weights(Path(tiny.run.output)).keys() == before.keys()


def test_an_unwritable_output_is_refused(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GrocoError, match="cannot write"):
        pretrain(override(tiny, {"run": {"output": str(tmp_path / "file" / "run")}}, "test"))


def test_images_without_labels_train_without_knn(tiny, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(32):
        Image.effect_noise((40, 36), 60 + i).convert("RGB").save(folder / f"{i}.png")
    settings = override(
        replace(tiny), {"data": {"data": str(folder), "workers": 0}, "views": {"augmentation": "small"}}, "test"
    )
    run = RunFolder(pretrain(settings))
    assert {line["kind"] for line in read_metrics(run.metrics)} == {"train"}
    assert run.curves.exists()


def drawn_lines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines of metrics each drawing of the curves showed."""
    drawn: list[int] = []

    def draw(metrics: list[object], path: Path, title: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        drawn.append(len(metrics))

    monkeypatch.setattr(curves, "draw_curves", draw)
    return drawn


def test_the_curves_are_there_after_the_first_epoch_of_an_unfinished_run(quick, monkeypatch):
    drawn, seen = drawn_lines(monkeypatch), []
    monkeypatch.setattr(curves, "_SHARE", float("inf"))
    picture, step = RunFolder(Path(quick.run.output)).curves, Report.step

    def reported(self: Report, now: int) -> None:
        seen.append(picture.exists())
        step(self, now)

    monkeypatch.setattr(Report, "step", reported)
    pretrain(quick)
    assert seen == [False] * 3 + [True] * 3
    assert drawn == [3, 6]


def test_the_curves_go_as_far_as_a_run_that_was_stopped(quick, monkeypatch):
    drawn = drawn_lines(monkeypatch)
    stop_at(monkeypatch, 2)
    with pytest.raises(Interrupted):
        pretrain(quick)
    assert drawn == [2]


def test_the_curves_go_as_far_as_a_run_that_diverged(quick, monkeypatch):
    drawn = drawn_lines(monkeypatch)
    with pytest.raises(GrocoError, match="the loss is nan in step"):
        pretrain(override(quick, {"optim": {"learning_rate": 1e30}}, "test"))
    assert drawn[-1] == len(read_metrics(RunFolder(Path(quick.run.output)).metrics))


def test_no_picture_is_worth_a_run(quick, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(console, "warn", warned.append)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: 1 / 0)
    assert RunFolder(pretrain(quick)).latest.exists()
    assert warned
    assert all("curves.png could not be drawn (ZeroDivisionError: division by zero)" in line for line in warned)
