"""What `groco bench train` measures: a bare loop that does the same as groco's step, and parts that are all there."""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from groco_cli.engine import compiling
from groco_cli.engine.bare_loop import BareLoop
from groco_cli.engine.bench_train import Compilation, bench_train, passes
from groco_cli.engine.configuration import override
from groco_cli.engine.objective import build_loss
from groco_cli.engine.processes import Processes
from groco_cli.engine.step import PARTS, build_step
from groco_cli.errors import UsageError

ALONE = Processes(device=torch.device("cpu"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"views": {"local_views": 2, "local_size": 16}, "optim": {"optimizer": "lars"}},
        {"method": {"method": "mocov3"}},
        {"method": {"forward": "per-view"}},
        {"method": {"forward": "per-view", "method": "mocov3"}},
    ],
    ids=["siamese", "multi-crop", "mocov3", "per-view", "mocov3-per-view"],
)
def test_the_bare_loop_takes_the_same_steps_as_groco_s(quick, changes):
    settings = override(quick, changes, "test")
    loss = build_loss(settings.loss, settings.method.method)
    step = build_step(settings, loss, ALONE, "fp32")
    step.model.train()
    bare = BareLoop(copy.deepcopy(step.model), loss, settings, precision="fp32", rate=0.01)
    begun = copy.deepcopy(step.model.state_dict())
    for _ in range(3):
        views = [torch.randn(16, 3, size, size) for size in [32] * 2 + [16] * settings.views.local_views]
        own, _ = step(views, progress=0.0, rate=0.01)
        torch.testing.assert_close(bare(views), own)
    for name, weight in step.model.state_dict().items():
        torch.testing.assert_close(bare.model.state_dict()[name], weight, msg=name)
    assert any(not torch.equal(begun[name], weight) for name, weight in step.model.state_dict().items())


def test_every_part_is_measured_and_training_leaves_nothing_behind(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    speed = bench_train(quick, generated=True, repeats=2, advance=lambda: told.append(1))
    assert list(speed.parts) == ["data", *PARTS]
    assert min(*speed.parts.values(), speed.step, speed.bare, speed.ratio, speed.pace.images_per_second) > 0
    assert sum(speed.shares().values()) == pytest.approx(1)
    assert (speed.precision, speed.peak_bytes) == ("fp32", None)
    assert len(told) == passes(2)
    assert list(tmp_path.iterdir()) == []


def test_a_bare_loop_has_no_micro_batches_so_that_groco_s_step_is_measured_alone(quick):
    told = []
    settings = override(quick, {"optim": {"micro_batch": 8}}, "test")
    speed = bench_train(settings, generated=True, repeats=1, advance=lambda: told.append(1))
    assert speed.step > 0
    assert (speed.bare, speed.ratio) == (None, None)
    assert len(told) == passes(1)


def test_compiled_networks_are_measured_against_compiled_ones_and_against_themselves_uncompiled(quick, monkeypatch):
    compiled, calls = [], []

    def counting(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        compiled.append(graph)

        def run(*inputs: object) -> object:
            calls.append(graph)
            return graph(*inputs)

        return run

    torch.compiler.reset()
    monkeypatch.setattr(compiling, "_BACKEND", counting)
    speed = bench_train(override(quick, {"run": {"compile": True}}, "test"), generated=True, repeats=4)
    # An encoder and a projector, whose kernels the bare loop calls too; no step that is uncompiled calls them.
    assert len(compiled) == 2
    feeding, in_turn = 1 + 3 + 4 + 4, 3 + 4  # the first, warming up, the pace, the parts; warming up, in turn
    assert len(calls) == 2 * (feeding + in_turn) + 2 * in_turn
    assert speed.compilation.seconds > 0
    assert speed.compilation.uncompiled > 0


def test_what_compiling_costs_is_set_against_what_it_saves():
    quicker = Compilation(seconds=30.0, uncompiled=0.5, ratio=0.8)
    assert quicker.pays_after == pytest.approx(300)
    assert "0.800 times the uncompiled" in str(quicker)
    assert "30 s, made up for after 300 steps" in str(quicker)
    slower = Compilation(seconds=30.0, uncompiled=0.5, ratio=1.01)
    assert slower.pays_after is None
    assert "never makes up for" in str(slower)


def test_more_steps_than_an_epoch_of_real_images_has_are_no_trouble(quick, picture_folder):
    folder = picture_folder(*(f"{i}.png" for i in range(40)), size=(40, 40))
    speed = bench_train(override(quick, {"data": {"data": str(folder)}}, "test"), generated=False, repeats=2)
    assert str(folder) in speed.data
    assert 0 < speed.pace.waiting < 1


def test_what_does_not_fit_is_told_before_anything_is_measured(quick):
    with pytest.raises(UsageError, match="--batch-size 128 is more than the 100"):
        bench_train(override(quick, {"optim": {"batch_size": 128}}, "test"), generated=False, repeats=1)
    with pytest.raises(UsageError, match="--negatives 200"):
        bench_train(override(quick, {"loss": {"num_negatives": 200}}, "test"), generated=True, repeats=1)


def test_faiss_is_not_needed():
    code = "import sys; from groco_cli.engine import bench_train; assert 'faiss' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
