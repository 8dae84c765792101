"""The linear probe from settings to scores, as SimSiam publishes it (section 4.2; SimSiam's main_lincls.py, README).

Frozen encoder in evaluation mode; RandomResizedCrop and flip; SGD with momentum 0.9 inside LARS, no decay; learning
rate 0.1 · batch / 256, a cosine stepped once an epoch; batch 4,096; 90 epochs; the last epoch is the result, where
SimSiam's code keeps the best. Validation pictures, resized bilinearly as there, are encoded once, since nothing about
them changes; every one is scored (the released code of GroCo drops the last partial batch: 49,152 of 50,000).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from groco_cli.data.sources import Dataset, Source
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.feature_cache import cached_features, check_dtype
from groco_cli.evaluation.features import evaluation_transform
from groco_cli.evaluation.linear import LinearHeads, LinearScore, count_correct
from groco_cli.evaluation.linear_features import AugmentedFeatures, CachedFeatures, TrainingFeatures
from groco_cli.evaluation.protocol import check_labels
from groco_cli.models import Encoder, EncoderMetadata
from groco_cli.wording import counted


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """All that a probe's result depends on but the encoder and the data; as published by default.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step, over all processes.
        learning_rates: For a batch of 256; a head for each.
        weight_decay: Of weights and biases.
        cached: Whether to train on features of un-augmented pictures.
        precision: Of the encoder's forward pass: "fp32", "bf16" or "fp16"; heads are float32 in any case.
        cache_dtype: What features are kept in: "fp32" or "fp16".
        seed: Of the weights, the order and the views.

    Raises:
        UsageError: If a setting is out of its range.
    """

    epochs: int = 90
    batch_size: int = 4096
    learning_rates: tuple[float, ...] = (0.1,)
    weight_decay: float = 0.0
    cached: bool = False
    precision: str = "fp32"
    cache_dtype: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value in {"--epochs": self.epochs, "--batch-size": self.batch_size}.items():
            if value < 1:
                raise UsageError(f"{option} {value} must be positive", f"type {option} 1 or more")
        for rate in self.learning_rates:
            if not (rate > 0 and math.isfinite(rate)):
                raise UsageError(f"--lr {rate:g} must be positive", "type --lr 0.1")
        shown = {f"{rate:g}" for rate in self.learning_rates}  # by which tables and the heads' files tell them apart
        if len(shown) < max(1, len(self.learning_rates)):
            raise UsageError("--lr is given twice with one value, to six digits", "give each learning rate once")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise UsageError(f"--weight-decay {self.weight_decay:g} is out of range", "type 0 or more")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"--seed {self.seed} is out of range", f"type a number from 0 to {2**64 - 1}")
        check_dtype(self.cache_dtype)

    def rates(self, epoch: int) -> list[float]:
        """Each head's learning rate in an epoch, from 0; a cosine from its peak, stepped once an epoch."""
        share = self.batch_size / 256 * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return [rate * share for rate in self.learning_rates]

    def altered(self, about: EncoderMetadata) -> list[str]:
        """What is not as published, for people; nothing where all is."""
        published = ProbeSettings()
        cut = f" cut from {about.resize}" * (about.resize > about.image_size)
        changes = {
            "features cached without augmentation": self.cached,
            counted(self.epochs, "epoch"): self.epochs != published.epochs,
            f"batch {self.batch_size}": self.batch_size != published.batch_size,
            f"learning rate {' and '.join(f'{rate:g}' for rate in self.learning_rates)}": self.learning_rates
            != published.learning_rates,
            f"weight decay {self.weight_decay:g}": self.weight_decay != published.weight_decay,
            f"{about.image_size}-pixel pictures{cut}": (about.image_size, about.resize) != (224, 256),
            f"encoder in {self.precision}": self.precision != published.precision,
            f"kept features in {self.cache_dtype}": self.cache_dtype != published.cache_dtype,
        }
        return [what for what, changed in changes.items() if changed]

    def protocol(self, about: EncoderMetadata) -> str:
        """Which protocol this is, in one line."""
        changes = self.altered(about)
        if self.cached:
            return f"not the published protocol: {', '.join(changes)}"
        return "SimSiam's, as published" if not changes else f"SimSiam's, altered: {', '.join(changes)}"


@dataclass
class LinearProbe:
    """A probe on its way.

    Args:
        settings: What its result depends on.
        heads: One for each learning rate.
        train: Where training features come from.
        test_features: [q, D].
        test_labels: int64 [q].
        history: The scores after each epoch so far, a head each.
    """

    settings: ProbeSettings
    heads: LinearHeads
    train: TrainingFeatures
    test_features: Tensor
    test_labels: Tensor
    history: list[list[LinearScore]] = field(default_factory=list)

    def run(self, advance: Callable[[int], None] = lambda images: None) -> Iterator[list[LinearScore]]:
        """Train from where it is to the last epoch.

        Args:
            advance: Called with the number of images of each batch done.

        Yields:
            The scores after each epoch, a head each, when they are in `history`.

        Raises:
            GrocoError: If a loss or a head is no longer finite, or a picture cannot be decoded.
        """
        for epoch in range(len(self.history), self.settings.epochs):
            self.history.append(self._score(self._train(epoch, advance)))
            yield self.history[-1]

    def _train(self, epoch: int, advance: Callable[[int], None]) -> list[float]:
        """One epoch; each head's mean loss over it."""
        rates, decay = self.settings.rates(epoch), self.settings.weight_decay
        losses, seen = torch.zeros(len(rates), device=self.heads.bias.device), 0
        for features, labels, images in self.train.epoch(epoch):
            losses += self.heads.step(features, labels, rates, images=images, weight_decay=decay)
            seen += images
            advance(images)
        means: list[float] = (collectives.sum_over(losses) / seen).tolist()
        for rate, mean in zip(self.settings.learning_rates, means, strict=True):
            if not math.isfinite(mean):
                raise GrocoError(f"the loss of --lr {rate:g} is {mean} in epoch {epoch + 1}", "leave that one out")
        return means

    def _score(self, losses: list[float]) -> list[LinearScore]:
        total = len(self.test_labels)
        counts = count_correct(self.heads, self.test_features, self.test_labels).tolist()
        for rate, (_, _, finite) in zip(self.settings.learning_rates, counts, strict=True):
            if finite < total:  # a loss is computed before its step: of the last one it tells nothing
                after = f"after epoch {len(self.history) + 1}"
                raise GrocoError(f"the logits of --lr {rate:g} are not finite {after}", "leave that one out")
        return [
            LinearScore(
                learning_rate=rate,
                train_loss=loss,
                top1=first / total,
                top5=among_five / total,
                correct=first,
                total=total,
            )
            for rate, loss, (first, among_five, _) in zip(self.settings.learning_rates, losses, counts, strict=True)
        ]


def prepare_probe(
    encoder: Encoder,
    dataset: Dataset,
    settings: ProbeSettings,
    *,
    device: torch.device,
    workers: int,
    cache: Path | None,
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda count: None,
) -> LinearProbe:
    """Extract what features stay the same, and make the heads.

    Args:
        encoder: Stays as it is, in evaluation mode from now on.
        dataset: Labelled, of two classes or more, with a held-out part.
        settings: What the result depends on.
        device: Where to compute.
        workers: Processes that decode.
        cache: Where features are kept; None to keep them in memory.
        tell: Called with a line on what the cache had already.
        advance: Called with the number of images extracted, batch by batch: the held-out ones, and all where training
            features are cached.

    Raises:
        UsageError: If the batch is larger than the training images, or smaller than the number of processes.
        GrocoError: If the data set cannot be probed on, or features cannot be extracted.
    """
    check_probe_data(dataset, settings)
    assert dataset.test is not None
    assert dataset.test.labels is not None
    assert dataset.train.labels is not None
    transform = evaluation_transform(encoder.metadata, interpolation="bilinear")  # main_lincls.py's Resize(256)

    def extracted(part: str, source: Source) -> Tensor:
        return cached_features(
            encoder,
            source,
            transform,
            folder=cache,
            device=device,
            workers=workers,
            precision=settings.precision,
            dtype=settings.cache_dtype,
            found=lambda path: tell(f"{dataset.name} {part}: from the cache {path}"),
            advance=advance,
        )

    test_features = extracted("test", dataset.test)
    encoder.to(device).eval()  # in training mode its BNs would learn from the pictures
    train: TrainingFeatures
    if settings.cached:
        train = CachedFeatures(
            extracted("train", dataset.train),
            dataset.train.labels,
            batch_size=settings.batch_size,
            seed=settings.seed,
            device=device,
        )
    else:
        train = AugmentedFeatures(
            encoder,
            dataset.train,
            batch_size=settings.batch_size,
            seed=settings.seed,
            workers=workers,
            device=device,
            precision=settings.precision,
        )
    heads = LinearHeads.create(
        len(settings.learning_rates), len(dataset.train.classes), encoder.feature_dim, seed=settings.seed, device=device
    )
    return LinearProbe(settings, heads, train, test_features, dataset.test.labels)


def check_probe_data(dataset: Dataset, settings: ProbeSettings) -> None:
    """Check that a data set can be probed on with these settings.

    Raises:
        UsageError: If the batch is larger than the training images, or smaller than the number of processes.
        GrocoError: If there is no held-out part, no labels, or a single class.
    """
    if dataset.test is None:
        raise GrocoError(
            f"--data {dataset.name} has no held-out part to score on", "the linear probe needs val or test beside train"
        )
    check_labels(dataset, "the linear probe")
    batch, images = settings.batch_size, len(dataset.train)
    if batch > images:
        raise UsageError(
            f"--batch-size {batch} is more than the {counted(images, 'training image')} of {dataset.name}",
            f"type --batch-size {images} or less",
        )
    if batch < collectives.world_size():
        raise UsageError(
            f"--batch-size {batch} is less than the {collectives.world_size()} processes", "type a larger --batch-size"
        )
