"""Interrupted in mid-epoch and resumed equals uninterrupted, bit for bit, whatever learns, decodes or draws."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import pretrain, trainer
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.monitor import Stopped
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import LossSettings
from groco_cli.models import load_encoder
from support.runs import assert_equal, changed, resumed, steps, stopped, whole


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


@dataclass
class SlowMonitor:
    """Scores by the weights, and is asked to stop in the midst of one score."""

    stop_at: int
    scored: list[int] = field(default_factory=list)

    def score(self, encoder: nn.Module, stop: Callable[[], bool]) -> dict[str, float]:
        self.scored.append(len(self.scored))
        if len(self.scored) == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        if stop():
            raise Stopped
        return {"k": 1, "top1": next(encoder.parameters()).std().item(), "top5": 1.0, "bank": 1, "queries": 1}


@pytest.mark.parametrize(("score", "step"), [(1, 0), (2, 3), (3, 6)])
def test_a_run_that_is_stopped_while_it_is_scored_is_saved_and_scored_when_it_goes_on(quick, monkeypatch, score, step):
    settings = changed(quick, knn_every=1, save_every="9")
    monkeypatch.setattr(trainer, "knn_monitor", lambda *_: SlowMonitor(stop_at=score))
    with pytest.raises(Interrupted, match=f"after step {step} of 6"):
        pretrain(settings)
    folder = RunFolder(Path(settings.run.output))
    assert steps(folder)[0] == step
    monkeypatch.setattr(trainer, "knn_monitor", lambda *_: SlowMonitor(stop_at=0))
    resumed(settings)
    assert [line["step"] for line in read_metrics(folder.metrics) if line["kind"] == "knn"] == [0, 3, 6]
    assert_equal(folder, whole(settings))
    resumed(settings)
    assert len(read_metrics(folder.metrics)) == 9, "nothing is scored twice"


@pytest.mark.parametrize(("log_every", "logged"), [(2, [2, 3, 4, 6]), (3, [3, 6]), (100, [3, 6])])
@pytest.mark.parametrize("stop", [3, 4])
def test_the_last_step_of_each_epoch_is_logged_once_wherever_a_run_was_stopped(quick, log_every, logged, stop):
    settings = changed(quick, log_every=log_every)
    stopped(settings, stop)
    folder = resumed(settings)
    assert_equal(folder, whole(settings))
    assert [line["step"] for line in read_metrics(folder.metrics)] == logged
