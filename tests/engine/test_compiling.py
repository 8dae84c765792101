"""--compile: the same curve and the same names, and one line where nothing can be compiled."""

import pytest
import torch
from torch import Tensor

from groco_cli.engine import compiling, pretrain
from groco_cli.engine import step as steps
from groco_cli.engine.configuration import override, resume_settings, to_toml
from groco_cli.engine.objective import build_loss, build_method
from groco_cli.engine.processes import Processes
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    """The networks in float64, and no compilation left of another test."""
    torch.compiler.reset()
    monkeypatch.setattr(steps, "build_method", lambda settings: build_method(settings).double())


def curve(settings: PretrainSettings, compiled: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Losses of three steps, and what they leave."""
    settings = override(settings, {"run": {"compile": compiled}}, "test")
    alone = Processes(device=torch.device("cpu"))
    step = steps.build_step(settings, build_loss(settings.loss, settings.method.method), alone, "fp32")
    step.model.train()
    generator = torch.Generator().manual_seed(1)
    views = list(torch.randn(2, 32, 3, 32, 32, dtype=torch.float64, generator=generator))
    return [step(views, progress=0.5, rate=0.1)[0] for _ in range(3)], step.model.state_dict()


def assert_the_same_compiled(settings: PretrainSettings) -> None:
    (eager, weights), (compiled, same) = curve(settings, False), curve(settings, True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    torch.testing.assert_close(compiled, eager, atol=1e-9, rtol=1e-9)
    assert list(weights) == list(same)
    for name, weight in weights.items():
        torch.testing.assert_close(same[name], weight, atol=1e-7, rtol=1e-7, msg=name)


def test_compiling_changes_no_name_in_a_checkpoint(quick):
    settings = override(quick, {"method": {"method": "mocov3"}}, "test")
    alone, loss = Processes(device=torch.device("cpu")), build_loss(settings.loss, "mocov3")
    plain = steps.build_step(settings, loss, alone, "fp32").model
    compiled = steps.build_step(override(settings, {"run": {"compile": True}}, "test"), loss, alone, "fp32").model
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled.heads().keys() == plain.heads().keys()
    assert all(network._compiled_call_impl for network in compiled.children())
    assert not any(network._compiled_call_impl for network in plain.children())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"optim": {"micro_batch": 16}}, {"method": {"method": "mocov3"}}],
    ids=["siamese", "micro-batches", "mocov3"],
)
def test_what_is_traced_computes_the_same_under_the_same_names(quick, monkeypatch, changes):
    monkeypatch.setattr(compiling, "_BACKEND", "aot_eager")  # all of torch.compile but the making of kernels
    assert_the_same_compiled(override(quick, changes, "test"))


@pytest.mark.long
def test_compiled_kernels_compute_the_same(quick):
    quick = override(quick, {"model": {"arch": "test_vit", "projector_layers": 2}}, "test")
    assert_the_same_compiled(quick)


def test_what_cannot_be_compiled_is_told_in_one_line(quick, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand more of it")

    monkeypatch.setattr(compiling, "_BACKEND", broken)
    monkeypatch.setattr(steps, "build_method", build_method)
    with pytest.raises(GrocoError, match=r"^torch.compile failed: No working C.. compiler found$") as caught:
        pretrain(override(quick, {"run": {"compile": True}}, "test"))
    assert caught.value.hint == "install a C++ compiler such as g++, or leave --compile out"


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="of something else"), compiling.compiler_explained():
        raise RuntimeError("of something else")


def test_a_run_may_be_resumed_compiled(quick, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(quick))
    assert resume_settings(file, {"run": {"compile": True}}).run.compile
