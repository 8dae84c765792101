"""Passes: each view by itself or all together; micro-batches have the gradient of the whole batch, in less memory."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from groco_cli.engine import step as steps
from groco_cli.engine.configuration import override
from groco_cli.engine.methods import Method
from groco_cli.engine.objective import build_loss, build_method
from groco_cli.engine.passes import Passes
from groco_cli.engine.peak_memory import peak_bytes
from groco_cli.engine.processes import Processes
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.step import TrainingStep, build_step
from groco_cli.errors import UsageError

CPU = torch.device("cpu")
IMAGES = 8
CASES = [(method, loss, 3) for method in ("siamese", "mocov3") for loss in ("groco", "infonce", "triplet")]
CASES += [("siamese", "infonce", 4), ("siamese", "infonce", 1)]  # two parts, one by one; 3 makes parts of 3, 3 and 2


@pytest.fixture
def convnext(tiny: PretrainSettings) -> PretrainSettings:
    """No BN but in the heads; two views of 64 pixels and one of 32. (timm's ViTs resize positions in float32.)"""
    changes = {
        "model": {"arch": "test_convnext"},
        "views": {"image_size": 64, "local_views": 1, "local_size": 32},
        "optim": {"batch_size": IMAGES},
    }
    return override(tiny, changes, "test")


def crops(images: int = IMAGES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(images, 3, size, size, dtype=torch.float64, generator=generator) for size in (64, 64, 32)]


def in_double(settings: PretrainSettings) -> Method:
    return build_method(settings).double()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.parametrize(("method", "loss", "micro_batch"), CASES)
def test_the_gradient_is_that_of_the_whole_batch_in_one_pass(convnext, method, loss, micro_batch):
    forward = "per-view" if (method, loss) == ("mocov3", "groco") else "joint"
    changes = {"method": {"method": method, "forward": forward}, "loss": {"loss": loss, "num_negatives": 5}}
    settings = override(convnext, changes, "test")
    measured = []
    for size in (0, micro_batch):
        torch.manual_seed(0)
        model = in_double(override(settings, {"optim": {"micro_batch": size}}, "test")).train()
        compared = model(crops())
        value = build_loss(settings.loss, method)(compared.anchors, 2, compared.targets)
        value.backward()
        measured.append({"loss": value.detach(), **gradients(model), **dict(model.named_buffers())})
    assert measured[0]["encoder.backbone.stem.0.weight"].abs().max() > 1e-6
    assert_equal(*measured)


class Noisy(nn.Module):
    """Everything that makes two passes differ: BN, dropout, and a layer that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.second = nn.Linear(8, 6)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.drop(self.bn(self.first(images)).relu())
        features = self.second(maps.mean(dim=(2, 3)))
        return features * (torch.rand(len(features), 1, dtype=features.dtype) > 0.2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_passes_are_one_function_of_bn_and_random_layers_alike(precision):
    torch.manual_seed(0)
    encoder = Noisy()
    views = [view.float() for view in crops()[:2]]
    plain = copy.deepcopy(encoder)
    loss = torch.nn.CosineSimilarity()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        torch.manual_seed(1)
        found = Passes(micro_batch=3).project(views, encoder, nn.Identity())
        after = torch.rand(())
        loss(*found).mean().backward()
        torch.manual_seed(1)
        parts = [plain(torch.cat([view[begin:end] for view in views])) for begin, end in ((0, 3), (3, 6), (6, 8))]
        assert torch.rand(()) == after
        expected = [torch.cat(part) for part in zip(*(part.chunk(2) for part in parts), strict=True)]
        loss(*expected).mean().backward()
    assert_equal(dict(enumerate(found)), dict(enumerate(expected)), 0)
    assert_equal(gradients(encoder), gradients(plain), 1e-6 if precision == "fp32" else 1e-3)
    assert_equal(dict(encoder.named_buffers()), dict(plain.named_buffers()), 0)
    assert encoder.bn.num_batches_tracked == 3  # by the first pass alone


def test_a_step_follows_with_the_momentum_encoder_once_and_scales_as_ever(convnext, monkeypatch):
    monkeypatch.setattr(steps, "build_method", in_double)
    settings = override(convnext, {"method": {"method": "mocov3"}, "optim": {"optimizer": "adamw"}}, "test")
    weights = []
    for size in (0, 3):
        step = whole(override(settings, {"optim": {"micro_batch": size}}, "test"))
        step.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for _ in range(2):
            step(crops(), progress=0.5, rate=1e-2)
        weights.append(step.model.state_dict())
    assert_equal(*weights, tolerance=1e-8)


def whole(settings: PretrainSettings, processes: Processes = Processes(device=CPU)) -> TrainingStep:  # noqa: B008
    step = build_step(settings, build_loss(settings.loss, settings.method.method), processes, "fp32")
    step.model.train()
    return step


def one_of_two(rank: int, cases: list[PretrainSettings], folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    steps.build_method = in_double
    for case in cases:
        step = whole(case, Processes(device=CPU, rank=rank, world=2))
        for _ in range(2):
            step([view.chunk(2)[rank] for view in crops()], progress=0.5, rate=0.1)
        torch.save(step.model.state_dict(), f"{folder}/{case.method.method}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_in_micro_batches_equal_one_without(convnext, tmp_path, monkeypatch):
    pairs = {"siamese": "infonce", "mocov3": "groco"}
    cases = [
        override(convnext, {"method": {"method": method}, "loss": {"loss": loss, "num_negatives": 5}}, "test")
        for method, loss in pairs.items()
    ]
    divided = [override(case, {"optim": {"micro_batch": 2}}, "test") for case in cases]
    mp.spawn(one_of_two, (divided, str(tmp_path)), nprocs=2)
    monkeypatch.setattr(steps, "build_method", in_double)
    for case in cases:
        alone = whole(case)
        for _ in range(2):
            alone(crops(), progress=0.5, rate=0.1)
        for rank in (0, 1):
            saved = torch.load(tmp_path / f"{case.method.method}-{rank}.pt", weights_only=True)
            assert_equal(saved, alone.model.state_dict(), 1e-8)


def test_the_encoder_never_sees_more_than_a_micro_batch_and_memory_shows_it(convnext):
    views = [view.float() for view in crops(64)[:2]]
    peaks = []
    for size in (0, 4):
        model = build_method(override(convnext, {"optim": {"micro_batch": size}}, "test")).train()
        seen: list[int] = []
        model.encoder.register_forward_pre_hook(lambda _, images, seen=seen: seen.append(len(images[0])))

        def train(model: Method = model) -> None:
            torch.cat(model(views).anchors).square().mean().backward()

        peaks.append(peak_bytes(train, torch.device("cpu")))
        assert seen == ([128] if size == 0 else [8] * 16 * 2)
    assert peaks[1] < peaks[0] / 3


def test_a_micro_batch_that_holds_all_is_encoded_once(convnext):
    model = build_method(override(convnext, {"optim": {"micro_batch": 64}}, "test")).train()
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    torch.cat(model([view.float() for view in crops()[:2]]).anchors).sum().backward()
    assert len(seen) == 1


@pytest.mark.parametrize("method", ["siamese", "mocov3"])
def test_per_view_equals_calling_the_networks_on_each_view_by_itself(quick, method):
    settings = override(quick, {"method": {"method": method, "forward": "per-view"}}, "test")
    model = in_double(settings).train()
    plain = copy.deepcopy(model)
    views = [view * (1 + number) + number for number, view in enumerate(crops())]  # of statistics of their own
    found = model(views)
    expected = [plain.projector(plain.encoder(view)) for view in views]
    if method == "mocov3":
        expected = [plain.predictor(projection) for projection in expected]
        targets = [plain.momentum_projector(plain.momentum_encoder(view)) for view in views]
        assert_equal(dict(enumerate(found.targets)), dict(enumerate(targets)))
    assert_equal(dict(enumerate(found.anchors)), dict(enumerate(expected)))
    for anchors in (found.anchors, expected):
        sum(anchor.sin().mean() for anchor in anchors).backward()
    assert_equal(gradients(model), gradients(plain))
    assert_equal(dict(model.named_buffers()), dict(plain.named_buffers()))
    joint = in_double(override(settings, {"method": {"forward": "joint"}}, "test")).train()
    joint.load_state_dict(plain.state_dict())
    assert not torch.allclose(joint(views).anchors[0], found.anchors[0], atol=0.1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_encode_views_together_and_the_whole_batch_at_once(recipe):
    settings = RECIPES[recipe].settings
    assert (settings.method.forward, settings.optim.micro_batch) == ("joint", 0)


def test_micro_batches_that_leave_bn_a_single_image_are_refused(quick):
    single = {"method": {"forward": "per-view"}, "optim": {"micro_batch": 1}}
    with pytest.raises(UsageError, match="--micro-batch 1 leaves the encoder's BN a single image") as caught:
        whole(override(quick, single, "test"))
    assert caught.value.hint == "type --micro-batch 2 or more"
    whole(override(quick, {"optim": {"micro_batch": 1}}, "test"))  # of which there are two views
    with pytest.raises(UsageError):
        whole(override(quick, {"views": {"local_views": 1}, "optim": {"micro_batch": 1}}, "test"))


def test_a_negative_micro_batch_is_refused(tiny):
    with pytest.raises(UsageError, match="--micro-batch -1 is out of range"):
        override(tiny, {"optim": {"micro_batch": -1}}, "test")
