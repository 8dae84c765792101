"""Runs in a test: left alone, stopped at a step, resumed, and compared bit for bit."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import pretrain
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
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
