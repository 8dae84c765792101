"""Encoder to score: which images are the bank, which the queries, and what an encoder is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groco_cli import console
from groco_cli.data.sources import Dataset, Source
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.feature_cache import plain_features
from groco_cli.evaluation.index import IndexOptions
from groco_cli.evaluation.index.blocks import feature_blocks
from groco_cli.evaluation.knn import KNNScore, check_votes, score_neighbours
from groco_cli.evaluation.neighbours import Neighbours, check_search, find_together
from groco_cli.models import Encoder, EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.containers import CheckpointError

_PIXELS = 32  # the side of CIFAR-10's pictures, which are scored as they are


@dataclass(frozen=True, kw_only=True)
class KNNResult:
    """A k-NN evaluation, and all that it was.

    Args:
        scores: A score for each k.
        bank: Images in the bank.
        queries: Images classified.
        protocol: "train/test", or "leave-one-out" where nothing was held out.
        backend: What searched.
        neighbours: What it found for each query; rows count the images that could be decoded.
    """

    scores: dict[int, KNNScore]
    bank: int
    queries: int
    protocol: str
    backend: str
    neighbours: Neighbours


def read_encoder(path: Path, *, method: str = "") -> Encoder:
    """Read an encoder from a checkpoint, and say on stderr what a file of another's was recognised as.

    Args:
        path: The checkpoint.
        method: What a file that does not say it was trained with.

    Raises:
        UsageError: If there is no such file.
        GrocoError: If it holds no whole encoder.
    """
    try:
        encoder = load_encoder(path, method=method)
    except FileNotFoundError as error:
        raise UsageError(f"no checkpoint {'in ' * path.is_dir()}{path}", "name one, or a run's folder") from error
    except ValueError as error:
        hint = error.hint if isinstance(error, CheckpointError) else ""
        raise GrocoError(str(error), hint or "give a whole checkpoint") from error
    if encoder.recognised:
        console.note(f"recognised: {encoder.recognised}")
    if encoder.doubt:
        console.warn(encoder.doubt)
    return encoder


def check_labels(dataset: Dataset, classifier: str = "k-NN") -> None:
    """Check that a data set can be classified.

    Args:
        dataset: The data set.
        classifier: What an error calls that which wants the labels.

    Raises:
        GrocoError: If it has no labels, or a single class.
    """
    for part in (dataset.train, dataset.test):
        if part is not None and part.labels is None:
            raise GrocoError(
                f"--data {dataset.name} has no labels",
                f"{classifier} needs one sub-folder per class, in train and val alike",
            )
    if len(dataset.train.classes) < 2:
        raise GrocoError(
            f"--data {dataset.name} has one class ({dataset.train.classes[0]}); there is nothing to tell apart",
            f"{classifier} needs two sub-folders or more",
        )


def evaluate_knn(
    encoder: Encoder,
    dataset: Dataset,
    *,
    ks: Sequence[int],
    temperature: float,
    device: torch.device,
    workers: int,
    on_bad_image: str = "error",
    options: IndexOptions | None = None,
    cache: Path | None = None,
    cache_dtype: str = "fp32",
    tell: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda count: None,
) -> KNNResult:
    """Classify a data set's test images by its training images, or each image by all others where none are held out.

    Under torch.distributed each process takes its part of the images and of the search, and all are given the result.

    Args:
        encoder: Gives the features.
        dataset: Labelled, of two classes or more (`check_labels`).
        ks: Numbers of neighbours.
        temperature: T of the votes' weights.
        device: Where features are computed and neighbours searched.
        workers: Processes that decode.
        on_bad_image: "error", or "skip" to leave images out that cannot be decoded, and to pass the cache by; a k that
            is more than what is left of the bank then becomes that many.
        options: How to search; None for exactly.
        cache: Where features are kept; None to keep them in memory alone.
        cache_dtype: What they are kept in: "fp32" or "fp16".
        tell: Called with a line on what the cache had already.
        advance: Called with the number of images done, batch by batch.

    Raises:
        UsageError: For a k below 1 or above the size of the bank, or a temperature that is not positive.
        GrocoError: If the data set has no labels or a single class, or too few of its images can be decoded.
    """
    check_labels(dataset)
    check_votes(ks, temperature, len(dataset.train) - (dataset.test is None))
    check_search(options, max(ks) + (dataset.test is None), device=device)

    def labelled_features(part: str, source: Source) -> tuple[Tensor, Tensor]:
        features = plain_features(
            encoder,
            source,
            cache=cache,
            dtype=cache_dtype,
            device=device,
            workers=workers,
            on_bad_image=on_bad_image,
            found=lambda path: tell(f"{dataset.name} {part}: from the cache {path}"),
            advance=advance,
        )
        assert source.labels is not None
        if on_bad_image == "error":
            return features, source.labels  # all are there; a look at each would read a whole bank from the disk
        good = torch.cat([features[block].isfinite().all(dim=1) for block in feature_blocks(features)])
        return (features, source.labels) if good.all() else (features[good], source.labels[good])

    bank, bank_labels = labelled_features("train", dataset.train)
    queries, labels = (None, bank_labels) if dataset.test is None else labelled_features("test", dataset.test)
    left = len(bank) - (dataset.test is None)
    if left < 1 or not len(labels):
        raise GrocoError(f"--data {dataset.name}: too few images can be decoded", "replace the broken files")
    if len(bank) < len(dataset.train):
        ks = sorted({min(k, left) for k in ks})
    neighbours = find_together(bank, queries, max(ks), device=device, options=options)
    scores = score_neighbours(neighbours, bank_labels, labels, ks=ks, temperature=temperature)
    return KNNResult(
        scores=scores,
        bank=len(bank),
        queries=len(labels),
        protocol="leave-one-out" if dataset.test is None else "train/test",
        backend=neighbours.backend,
        neighbours=neighbours,
    )


def untrained(metadata: EncoderMetadata, seed: int = 0) -> Encoder:
    """The same architecture with random weights: what training has to beat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_encoder(replace(metadata, method="untrained", epoch=0)).eval()


def pixels(metadata: EncoderMetadata) -> Encoder:
    """The picture itself as its feature: what any learning has to beat.

    Larger ones are shrunk to 32×32 and say so in their `arch`: at 224×224 ImageNet's bank would take 771 GB.
    """
    side = min(metadata.image_size, _PIXELS)
    shrunk = metadata.image_size > side
    about = replace(metadata, arch=f"pixels, {side}×{side}" if shrunk else "pixels", method="pixels", epoch=0)
    return Encoder(nn.Sequential(_Shrunk(side), nn.Flatten()) if shrunk else nn.Flatten(), 3 * side**2, about)


class _Shrunk(nn.Module):
    """Pictures [B, 3, H, W] at a smaller side, antialiased."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)

    def extra_repr(self) -> str:
        return str(self.side)  # which the cache knows the features by
