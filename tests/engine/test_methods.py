"""MoCo v3: who follows whom, what is trained, and that a run of it resumes as if nothing had happened."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groco_cli.distributed.interrupt import Interrupted
from groco_cli.engine import pretrain
from groco_cli.engine.configuration import override, resume_settings
from groco_cli.engine.methods import MoCoV3
from groco_cli.engine.objective import build_method
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import UsageError
from groco_cli.models import load_encoder


@pytest.fixture
def mocov3(tiny) -> PretrainSettings:
    return override(
        tiny,
        {"method": {"method": "mocov3"}, "optim": {"optimizer": "adamw", "learning_rate": 1e-3}},
        "test",
    )


@pytest.fixture
def vit(mocov3) -> PretrainSettings:
    model = {"arch": "vit_tiny_patch16_224", "attention_heads": 12}
    return override(mocov3, {"model": model, "loss": {"loss": "infonce", "num_negatives": 5}}, "test")


def built(settings: PretrainSettings) -> MoCoV3:
    torch.manual_seed(0)
    method = build_method(settings)
    assert isinstance(method, MoCoV3)
    return method


def followers(method: MoCoV3) -> dict[str, torch.Tensor]:
    return {
        **dict(method.momentum_encoder.named_parameters()),
        **{f"p.{k}": v for k, v in method.momentum_projector.named_parameters()},
    }


def leaders(method: MoCoV3) -> dict[str, torch.Tensor]:
    return {**dict(method.encoder.named_parameters()), **{f"p.{k}": v for k, v in method.projector.named_parameters()}}


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.99), (0.5, 0.995), (1.0, 1.0)])
def test_the_momentum_encoder_follows_with_cosine_momentum(mocov3, progress, momentum):
    method = built(mocov3)
    with torch.no_grad():
        for parameter in leaders(method).values():
            parameter.add_(torch.randn_like(parameter))
    before = {name: value.clone() for name, value in followers(method).items()}
    method.before_step(progress)
    for name, leader in leaders(method).items():
        expected = momentum * before[name] + (1 - momentum) * leader
        torch.testing.assert_close(followers(method)[name], expected, msg=name)


def test_anchors_are_predictions_and_targets_the_momentum_encoder_s_projections(mocov3):
    method = built(mocov3).train()
    views = [torch.randn(6, 3, 32, 32), torch.randn(6, 3, 32, 32)]
    anchors, targets = method(views)
    again = built(mocov3).train()
    projections = again.projector(again.encoder(torch.cat(views)))
    # At the start both networks are alike.
    torch.testing.assert_close(torch.cat(targets), projections)
    torch.testing.assert_close(torch.cat(anchors), again.predictor(projections))
    assert all(anchor.requires_grad for anchor in anchors)
    assert not any(target.requires_grad for target in targets)


def test_gradients_reach_all_that_is_trained_and_nothing_else(vit):
    method = built(vit).train()
    anchors, _ = method([torch.randn(4, 3, 32, 32)] * 2)
    torch.cat(anchors).square().mean().backward()
    trained = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    fixed = {"encoder.backbone.pos_embed"} | {f"encoder.backbone.patch_embed.proj.{n}" for n in ("weight", "bias")}
    expected = {name for name, _ in method.named_parameters() if not name.startswith("momentum_")} - fixed
    assert trained == expected
    thawed = built(override(vit, {"method": {"freeze_patches": False}}, "test"))
    assert thawed.encoder.backbone.patch_embed.proj.weight.requires_grad


@pytest.mark.parametrize("settings", [pytest.param("mocov3", marks=pytest.mark.long), "vit"])
def test_a_run_trains_resumes_bit_for_bit_and_leaves_an_encoder(request, settings, tmp_path, monkeypatch):
    settings = request.getfixturevalue(settings)
    whole = pretrain(override(settings, {"run": {"output": str(tmp_path / "whole")}}, "test"))
    original = Report.step

    def reported(self: Report, now: int) -> None:
        original(self, now)
        if now == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Report, "step", reported)
        with pytest.raises(Interrupted):
            pretrain(settings)
    folder = RunFolder(Path(settings.run.output))
    pretrain(resume_settings(folder.settings, {}), resume=folder)
    left, right = load_file(folder.latest), load_file(RunFolder(whole).latest)
    assert {name.split(".")[0] for name in left} == {"encoder", "projector", "predictor"}
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    states = [torch.load(RunFolder(path).states[0], weights_only=True)["model"] for path in (folder.path, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    encoder = load_encoder(folder.latest)
    assert encoder.metadata.method == f"mocov3 with {settings.loss.loss}"
    start = built(settings).encoder.state_dict()
    moved = [name for name, value in encoder.state_dict().items() if not torch.equal(value, start[name])]
    assert any("norm" in name or "bn" in name for name in moved)
    assert not any("patch_embed" in name or "pos_embed" in name for name in moved)


@pytest.mark.parametrize(
    "model", [{"attention_heads": 4}, {"arch": "vit_tiny_patch16_224", "attention_heads": 5}], ids=["resnet", "vit"]
)
def test_impossible_attention_heads_are_a_usage_error(tiny, model):
    with pytest.raises(UsageError, match="attention heads"):
        build_method(override(tiny, {"model": model}, "test"))
