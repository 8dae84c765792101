"""Where a linear probe's training features come from: augmented pictures, encoded anew each epoch, or a cache.

Every batch names how many images it has over all processes, of which this one has its part. The last batch of an epoch
may be smaller: SimSiam's loader keeps it (DataLoader's drop_last is off in main_lincls.py).
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.data.loader import Share, ViewLoader
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import Source
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import View
from groco_cli.distributed import collectives
from groco_cli.models import Encoder

_CHUNK = 256  # pictures that are loaded and encoded together, at most where the batch divides well
_LEAST = 32


class Batch(NamedTuple):
    """This process's part of a batch.

    Args:
        features: float32 [b, D], on the device.
        labels: int64 [b], on the device.
        images: Images of the whole batch.
    """

    features: Tensor
    labels: Tensor
    images: int


class TrainingFeatures(Protocol):
    """Gives the batches of an epoch."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Every image once, in an order of this epoch's own."""


class AugmentedFeatures:
    """The published way: of each picture a random resized crop, mirrored half the time, goes through the encoder.

    Args:
        encoder: On the device, in evaluation mode.
        source: Labelled pictures.
        batch_size: Images a batch, over all processes.
        seed: Of order and views.
        workers: Processes that decode.
        device: Where to compute.
        precision: Of the forward pass.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device,
        precision: str,
    ) -> None:
        assert source.labels is not None
        self.encoder, self.labels, self.device, self.precision = encoder, source.labels, device, precision
        self.share = Share(collectives.rank(), collectives.world_size())
        # A frozen encoder sees each picture alone, so a batch of 4,096 need not be in memory at once.
        self.chunks = _chunks(batch_size, max(_LEAST, collectives.world_size()))
        about = encoder.metadata
        self.loader = ViewLoader(
            source,
            # torchvision's defaults, which SimSiam leaves as they are.
            [View(size=about.image_size, crop_scale=(0.08, 1.0), interpolation="bilinear")],
            batch_size=batch_size // self.chunks,
            order=shuffled(len(source), seed),
            normalisation=Normalisation(mean=about.mean, std=about.std),
            seed=seed,
            device=device,
            workers=workers,
            share=self.share,
            drop_last=False,
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Every image once, in an order of this epoch's own."""
        chunks = self.loader.batches(epoch)
        with dead_workers_explained():
            views = self.loader.epoch(epoch)
            for start in range(0, len(chunks), self.chunks):
                batch = chunks[start : start + self.chunks]
                own = np.concatenate([self.share.of(chunk) for chunk in batch])
                with collectives.failing_together():
                    features = torch.cat([self._encoded(next(views)[0]) for _ in batch])
                labels = self.labels[torch.from_numpy(own)].to(self.device)
                yield Batch(features, labels, sum(map(len, batch)))

    def _encoded(self, images: Tensor) -> Tensor:
        with torch.inference_mode(), devices.whole_float32(), devices.autocast(self.device, self.precision):
            features: Tensor = self.encoder(images)
            return features.float()


class CachedFeatures:
    """Features extracted beforehand, the same in every epoch: quick, and not the published protocol.

    Args:
        features: [n, D], of any dtype, on the CPU.
        labels: int64 [n].
        batch_size: Images a batch, over all processes.
        seed: Of the order.
        device: Where batches go.
    """

    def __init__(self, features: Tensor, labels: Tensor, *, batch_size: int, seed: int, device: torch.device) -> None:
        self.features, self.labels, self.batch_size, self.device = features, labels, batch_size, device
        self.order = shuffled(len(features), seed)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Every image once, in an order of this epoch's own."""
        share, order = Share(collectives.rank(), collectives.world_size()), self.order(epoch)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            own = torch.from_numpy(share.of(batch))
            yield Batch(self.features[own].to(self.device).float(), self.labels[own].to(self.device), len(batch))


def _chunks(batch_size: int, least: int) -> int:
    """Into how many even chunks to cut a batch; 1 where each would be larger than `_CHUNK` or smaller than `least`."""
    fewest = -(-batch_size // _CHUNK)
    return next((n for n in range(fewest, batch_size // least + 1) if batch_size % n == 0), 1)
