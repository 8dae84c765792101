"""The probe as a whole: which images it trains on with which labels, what it scores, and scikit-learn's optimum."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from groco_cli.data.sources import Dataset, FileSource, MemorySource, first, open_dataset
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.linear_features import AugmentedFeatures, CachedFeatures
from groco_cli.evaluation.linear_protocol import LinearProbe, ProbeSettings, prepare_probe
from groco_cli.evaluation.linear_state import DataStamp, ProbeRun, load_state, read_run, save_heads, save_state
from groco_cli.evaluation.protocol import untrained
from groco_cli.models import Encoder, EncoderMetadata, create_encoder

CPU = torch.device("cpu")
TINY = EncoderMetadata(arch="test_resnet", image_size=32, resize=32)
STAMP = DataStamp(classes=("a", "b", "c"), train="t", test="h")
PLAIN = EncoderMetadata(arch="mean", image_size=8, resize=8, mean=(0.0,) * 3, std=(1.0,) * 3)


class Colour(nn.Module):
    """The mean of each channel: what no crop of a picture of one colour changes."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def one_colour_each(count: int) -> MemorySource:
    """Picture i is all (i, 0, 0), and its label is i."""
    images = torch.zeros(count, 3, 10, 12, dtype=torch.uint8)
    images[:, 0] = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1)
    return MemorySource(images, torch.arange(count), tuple(map(str, range(count))))


def augmented(source: MemorySource | FileSource, batch_size: int, workers: int = 0) -> AugmentedFeatures:
    encoder = Encoder(Colour(), 3, PLAIN).eval()
    return AugmentedFeatures(
        encoder, source, batch_size=batch_size, seed=0, workers=workers, device=CPU, precision="fp32"
    )


def prepared(dataset: Dataset, settings: ProbeSettings, encoder: Encoder | None = None) -> LinearProbe:
    encoder = encoder or untrained(TINY)
    return prepare_probe(encoder, dataset, settings, device=CPU, workers=0, cache=None)


@pytest.mark.parametrize(("count", "batch_size"), [(250, 100), (200, 100), (130, 37), (70, 70), (255, 128)])
def test_each_picture_is_met_once_an_epoch_beside_its_own_label_the_last_batch_partial(count: int, batch_size: int):
    batches = list(augmented(one_colour_each(count), batch_size).epoch(3))
    sizes = [batch_size] * (count // batch_size) + [count % batch_size] * (count % batch_size > 0)
    assert [batch.images for batch in batches] == [len(batch.labels) for batch in batches] == sizes
    for batch in batches:
        assert torch.equal((batch.features[:, 0] * 255).round().long(), batch.labels)
    assert torch.cat([batch.labels for batch in batches]).sort().values.tolist() == list(range(count))


def test_a_large_batch_goes_through_the_encoder_in_parts():
    encoder = augmented(one_colour_each(250), 250).encoder
    sizes: list[int] = []
    encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    source = one_colour_each(256)
    large = MemorySource(source.images.repeat(5, 1, 1, 1), source.labels.repeat(5), source.classes)
    features = AugmentedFeatures(encoder, large, batch_size=1024, seed=0, workers=0, device=CPU, precision="fp32")
    batches = list(features.epoch(0))
    assert sizes == [256] * 5
    assert [len(batch.features) for batch in batches] == [1024, 256]


def test_epochs_differ_in_order_and_views():
    features = augmented(one_colour_each(60), 60)
    first_epoch, second = (next(features.epoch(epoch)).labels for epoch in (0, 1))
    assert not torch.equal(first_epoch, second)
    assert torch.equal(first_epoch, next(augmented(one_colour_each(60), 60).epoch(0)).labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_follow_pictures_in_files_too(picture_folder: Callable[..., Path], workers: int):
    folder = picture_folder("0.png").parent
    for number in range(50):
        Image.new("RGB", (20 + number % 7, 30), (number, 0, 0)).save(folder / f"c{number}.png")
    labels = torch.arange(50)
    source = FileSource(tuple(folder / f"c{number}.png" for number in range(50)), labels, tuple(map(str, range(50))))
    batches = list(augmented(source, 40, workers).epoch(0))
    assert [len(batch.labels) for batch in batches] == [40, 10]
    for batch in batches:
        assert torch.equal((batch.features[:, 0] * 255).round().long(), batch.labels)


def test_cached_features_keep_their_labels_and_the_last_batch():
    features = torch.arange(23).view(-1, 1).half()
    batches = list(CachedFeatures(features, torch.arange(23), batch_size=10, seed=1, device=CPU).epoch(0))
    assert [batch.images for batch in batches] == [10, 10, 3]
    for batch in batches:
        assert torch.equal(batch.features[:, 0], batch.labels.float())
    assert len({int(label) for batch in batches for label in batch.labels}) == 23


def test_the_learning_rate_is_a_cosine_stepped_once_an_epoch():
    settings = ProbeSettings(learning_rates=(0.1, 0.3), epochs=90)
    assert settings.rates(0) == pytest.approx([1.6, 4.8])
    assert settings.rates(45) == pytest.approx([0.8, 2.4])
    assert settings.rates(89) == pytest.approx([1.6 * (1 + math.cos(math.pi * 89 / 90)) / 2 * f for f in (1, 3)])


def test_the_probe_trains_as_a_loop_written_out(noise):
    dataset = Dataset("noise", noise(30), noise(7, seed=1))
    settings = ProbeSettings(epochs=3, batch_size=12, learning_rates=(20.0,), cached=True)
    probe = prepared(dataset, settings)
    layer = nn.Linear(*reversed(probe.heads.weight.shape[1:]))
    layer.load_state_dict({"weight": probe.heads.weight[0].clone(), "bias": probe.heads.bias[0].clone()})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 20 * 12 / 256 * (1 + math.cos(math.pi * epoch / 3)) / 2
        losses = []
        for features, labels, _ in probe.train.epoch(epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(layer(features.clone()), labels)
            loss.backward()
            for p in layer.parameters():
                if p.detach().norm() > 0:
                    p.grad.mul_(0.001 * p.detach().norm() / (p.grad.norm() + 1e-8))
            optimizer.step()
            losses.append((loss.item(), len(labels)))
    history = list(probe.run())
    torch.testing.assert_close(probe.heads.weight[0], layer.weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(probe.heads.bias[0], layer.bias.detach(), rtol=1e-4, atol=1e-6)
    assert history[2][0].train_loss == pytest.approx(sum(loss * n for loss, n in losses) / 30, rel=1e-4)


@pytest.mark.parametrize("held_out", [1, 7, 13])
@pytest.mark.parametrize("cached", [True, False])
def test_every_held_out_image_is_scored_once(noise, held_out: int, cached: bool):
    dataset = Dataset("noise", noise(20), noise(held_out, seed=1))
    probe = prepared(dataset, ProbeSettings(epochs=1, batch_size=8, cached=cached))
    (score,) = next(iter(probe.run()))
    best = (probe.test_features @ probe.heads.weight[0].T + probe.heads.bias[0]).argmax(dim=1)
    assert score.total == len(probe.test_features) == held_out
    assert score.correct == int((best == dataset.test.labels).sum())
    assert (score.top1, score.top5) == (score.correct / held_out, 1.0)


def test_a_head_that_diverges_in_its_last_step_is_not_scored(noise):
    settings = ProbeSettings(epochs=1, batch_size=30, learning_rates=(0.1, 1e40), cached=True)
    probe = prepared(Dataset("noise", noise(30), noise(9, seed=1)), settings)
    with pytest.raises(GrocoError, match=r"the logits of --lr 1e\+40 are not finite after epoch 1") as caught:
        list(probe.run())
    assert (probe.history, caught.value.hint) == ([], "leave that one out")


@pytest.mark.parametrize("cached", [True, False])
def test_the_encoder_stays_as_it_is(noise, cached: bool):
    encoder = create_encoder(TINY).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    probe = prepared(Dataset("n", noise(20), noise(5)), ProbeSettings(epochs=2, batch_size=10, cached=cached), encoder)
    list(probe.run())
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("cached", [True, False])
def test_resumed_equals_uninterrupted_bit_for_bit(noise, tmp_path: Path, cached: bool):
    dataset = Dataset("noise", noise(30), noise(9, seed=1))
    settings = ProbeSettings(epochs=4, batch_size=12, learning_rates=(0.1, 30.0), cached=cached)
    whole = prepared(dataset, settings)
    list(whole.run())
    run = ProbeRun(checkpoint="x", encoder="y", data="noise", stamp=STAMP, settings=settings)
    for epochs in (1, 2, 1):  # stopped after epoch 1 and after epoch 3
        probe = prepared(dataset, read_run(tmp_path).settings if epochs == 2 else settings)
        if (tmp_path / "linprobe.safetensors").exists():
            load_state(tmp_path, probe)
        going = probe.run()
        for _ in range(epochs):
            next(going)
            save_state(tmp_path, run, probe)
    assert probe.history == whole.history
    assert len(whole.history) == 4
    for name in ("weight", "bias", "weight_momentum", "bias_momentum"):
        assert torch.equal(getattr(probe.heads, name), getattr(whole.heads, name)), name
    assert read_run(tmp_path) == run


def test_a_damaged_state_is_refused_and_a_missing_one_told(noise, tmp_path: Path):
    dataset = Dataset("noise", noise(12), noise(4))
    settings = ProbeSettings(epochs=1, batch_size=12, cached=True)
    probe = prepared(dataset, settings)
    with pytest.raises(UsageError, match="holds no linear probe"):
        load_state(tmp_path, probe)
    save_state(tmp_path, ProbeRun(checkpoint="", encoder="", data="", stamp=STAMP, settings=settings), probe)
    path = tmp_path / "linprobe.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(GrocoError, match="is damaged"):
        load_state(tmp_path, probe)


def test_saved_heads_are_torchs_linear_layers(noise, tmp_path: Path):
    dataset = Dataset("noise", noise(12), noise(4))
    settings = ProbeSettings(epochs=1, batch_size=12, cached=True, learning_rates=(0.1, 0.25))
    probe = prepared(dataset, settings)
    list(probe.run())
    run = ProbeRun(checkpoint="a.safetensors", encoder="hash", data="noise", stamp=STAMP, settings=settings)
    paths = save_heads(tmp_path, run, probe, ("a", "b", "c"), TINY)
    assert [path.name for path in paths] == ["head-lr0.1.safetensors", "head-lr0.25.safetensors"]
    layer = nn.Linear(probe.heads.weight.shape[2], 3)
    layer.load_state_dict(load_file(paths[1]))
    logits = layer(probe.test_features).detach()
    torch.testing.assert_close(logits, probe.heads.logits(probe.test_features)[:, 1])
    with safe_open(paths[1], framework="pt") as file:
        facts = json.loads(file.metadata()["linprobe"])
    assert (facts["checkpoint"], facts["classes"]) == ("a.safetensors", ["a", "b", "c"])
    assert facts["score"]["learning_rate"] == 0.25


def test_what_is_not_as_published_is_said():
    published = EncoderMetadata(arch="resnet50")
    assert ProbeSettings().protocol(published) == "SimSiam's, as published"
    altered = ProbeSettings(epochs=10, learning_rates=(0.1, 0.3), precision="bf16")
    assert altered.protocol(published) == ("SimSiam's, altered: 10 epochs, learning rate 0.1 and 0.3, encoder in bf16")
    assert ProbeSettings(cached=True).protocol(published).startswith("not the published protocol: features cached")
    assert "32-pixel pictures" in ProbeSettings().protocol(TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rates": (0.1, -1.0)}, "--lr -1"),
        ({"learning_rates": (0.1, 0.1)}, "--lr is given twice"),
        ({"learning_rates": (0.1, 0.10000001)}, "--lr is given twice with one value, to six digits"),
        ({"weight_decay": -1.0}, "--weight-decay -1"),
        ({"seed": 2**64}, "--seed 18446744073709551616 is out of range"),
        ({"cache_dtype": "fp8"}, "--cache-dtype fp8"),
    ],
)
def test_a_setting_out_of_range_is_told_by_its_option(change, message):
    with pytest.raises(UsageError, match=message) as caught:
        ProbeSettings(**change)
    assert caught.value.hint


def test_what_cannot_be_probed_on_is_told(noise):
    settings = ProbeSettings(epochs=1, batch_size=12)
    good = Dataset("photos", noise(12), noise(4))
    with pytest.raises(GrocoError, match="--data photos has no held-out part"):
        prepared(replace(good, test=None), settings)
    with pytest.raises(GrocoError, match="--data photos has no labels") as caught:
        prepared(replace(good, train=replace(good.train, labels=None, classes=())), settings)
    assert "linear probe" in caught.value.hint
    with pytest.raises(UsageError, match="--batch-size 13 is more than the 12 training images") as too_many:
        prepared(good, replace(settings, batch_size=13))
    assert too_many.value.hint == "type --batch-size 12 or less"


@pytest.mark.slow
def test_on_cached_features_of_real_images_the_probe_reaches_scikit_learns_optimum(cifar_root: Path, tmp_path: Path):
    """Both minimise mean cross-entropy + λ/2 (|W|² + |b|²), strictly convex: the optimum is one point.

    scikit-learn leaves its intercept out of the penalty, so it gets a feature of ones instead. Without λ the optimum of
    these features (the smallest singular value is 1e-9 of the largest) is beyond any gradient method, L-BFGS's too.
    """
    from sklearn.linear_model import LogisticRegression

    cifar, decay = open_dataset("cifar10", cifar_root), 1e-3
    dataset = replace(cifar, train=first(cifar.train, 2000), test=first(cifar.test, 1000))
    encoder = untrained(EncoderMetadata(arch="resnet18", image_size=32, resize=32))
    settings = ProbeSettings(epochs=300, batch_size=2000, learning_rates=(3.0,), weight_decay=decay, cached=True)
    probe = prepare_probe(encoder, dataset, settings, device=CPU, workers=0, cache=tmp_path)
    *_, scores = probe.run()
    features = probe.train.features.double()
    labels = dataset.train.labels

    def objective(weight: Tensor, bias: Tensor) -> float:
        loss = F.cross_entropy(features @ weight.double().T + bias.double(), labels)
        return float(loss + decay / 2 * (weight.double().square().sum() + bias.double().square().sum()))

    def with_ones(values: Tensor) -> np.ndarray:
        return np.hstack([values.double().numpy(), np.ones((len(values), 1))])

    oracle = LogisticRegression(C=1 / (decay * 2000), fit_intercept=False, tol=1e-9, max_iter=10_000)
    oracle.fit(with_ones(features), labels.numpy())
    optimum = torch.from_numpy(oracle.coef_)
    start = objective(torch.zeros(10, 512), torch.zeros(10))
    lowest = objective(optimum[:, :-1], optimum[:, -1])
    assert start - lowest > 0.2, "there is something to learn"
    assert objective(probe.heads.weight[0], probe.heads.bias[0]) - lowest < 1e-5
    correct = int((oracle.predict(with_ones(probe.test_features)) == dataset.test.labels.numpy()).sum())
    assert abs(scores[0].correct - correct) <= 2  # of 1,000
    assert correct > 150, "above chance"
