"""Batches of images on the device: views to learn from, or whole pictures to measure.

Where pictures lie in memory, everything is done in batches on the device. Where they lie in files, worker processes
decode each once and crop all its views; uint8 goes to the device, which does the photometric part in batches.

A view depends on (seed, epoch, image, view) alone: not on the batch, the number of workers or processes, or where a run
was resumed.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groco_cli import console
from groco_cli.data.bad_images import beyond_reason, cannot_decode, gone
from groco_cli.data.counter import uniforms
from groco_cli.data.crops import CROP_DRAWS, affine, crop_boxes, resized_crops
from groco_cli.data.photometric import PHOTOMETRIC_DRAWS, draw_changes
from groco_cli.data.pool import Requests, worker_loader
from groco_cli.data.prefetch import Prefetcher
from groco_cli.data.sampling import Order
from groco_cli.data.sources import MemorySource, Source
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.data.views import Affine, View
from groco_cli.data.workers import BadImage, CroppedViews, Prepared, Request, WholePictures
from groco_cli.errors import GrocoError

ON_BAD_IMAGE = ("error", "skip")
_AFFINE_DRAWS = 4
_CACHED = 2**18  # values that a CPU changes at a time, one image of 224 pixels: all it does to them stays in its cache


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process prepares.

    Args:
        process: Its number, from 0.
        processes: How many there are; they divide the batch.
    """

    process: int = 0
    processes: int = 1

    def of(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a batch; where a rest does not divide, the first processes have one image more."""
        return np.array_split(batch, self.processes)[self.process]


class ViewLoader:
    """Shuffled batches of augmented views, without end: one call of `epoch` an epoch.

    Each epoch takes `len(source) // batch_size` batches of a new order; what is over comes in later epochs, or in
    a last, smaller batch.

    Args:
        source: The images.
        views: How each view is drawn.
        batch_size: Images a batch, over all processes.
        order: The images' order in each epoch; see `sampling`.
        normalisation: Applied last.
        seed: Of the views.
        device: Where the views are wanted.
        workers: Processes that decode, for images in files.
        share: This process's part of each batch.
        on_bad_image: "error", or "skip": a bad image's place goes to another one of no batch-mate's number, the bad
            one is named once, and more than one in a hundred of an epoch are an error.
        dtype: What colours and blur are computed in; views are float32 in any case.
        drop_last: Whether what is over is left to later epochs; a rest of fewer images than processes always is.
    """

    def __init__(
        self,
        source: Source,
        views: Sequence[View],
        *,
        batch_size: int,
        order: Order,
        normalisation: Normalisation,
        seed: int,
        device: torch.device,
        workers: int,
        share: Share = Share(),
        on_bad_image: str = "error",
        dtype: torch.dtype = torch.float32,
        drop_last: bool = True,
    ) -> None:
        self.source, self.views, self.batch_size, self.order = source, tuple(views), batch_size, order
        self.normalisation, self.seed, self.device, self.share = normalisation, seed, device, share
        self.dtype, self.drop_last = dtype, drop_last
        self.skips = on_bad_image == "skip"
        self.bad: dict[str, str] = {}
        self._prefetcher = Prefetcher(device)
        self._pictures = source.images.to(device) if isinstance(source, MemorySource) else None
        self._files = None
        if self._pictures is None:
            self._requests = Requests()
            crops = CroppedViews(source, self.views, seed, substitute=self.skips)
            self._files = worker_loader(crops, self._requests, workers, device, persistent=True)

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, over = divmod(len(self.source), self.batch_size)
        return whole + (not self.drop_last and over >= self.share.processes)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """The numbers of the images in each batch of an epoch, over all processes."""
        order = self.order(epoch)
        return [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Tensor]]:
        """The batches of one epoch.

        Args:
            epoch: Number of the epoch, from 0.
            start: How many of its batches to pass over (where a resumed run goes on).

        Yields:
            One tensor a view, float32 [B/processes, 3, size, size], normalised, on the device.

        Raises:
            GrocoError: If an image cannot be decoded, or too many cannot where they are skipped.
        """
        batches = self.batches(epoch)[start:]
        if self._files is not None:
            crops = self._crops_from_files(epoch, batches)
            return self._prefetcher.ahead(crops, lambda batch: self.finish(epoch, *batch))
        samples = map(self.share.of, batches)
        return self._prefetcher.ahead(samples, lambda s: self.finish(epoch, *self._crops_from_memory(epoch, s)))

    def finish(self, epoch: int, samples: NDArray[np.int64], crops: Sequence[Tensor]) -> list[Tensor]:
        """Everything after the crop, batched on the device.

        Args:
            epoch: Number of the epoch.
            samples: Numbers of the images, int64 [B].
            crops: Their crops, one tensor [B, 3, size, size] a view: uint8, or floating in [0, 1].

        Returns:
            The views, float32, normalised.
        """
        return [self._finished(crop, number, epoch, samples) for number, crop in enumerate(crops)]

    def _crops_from_memory(self, epoch: int, samples: NDArray[np.int64]) -> "_Crops":
        assert self._pictures is not None
        height, width = self._pictures.shape[-2:]
        chosen = self._pictures[torch.from_numpy(samples).to(self.device)]
        crops = []
        for number, view in enumerate(self.views):
            boxes = crop_boxes(
                self._draws(epoch, number, samples)[:, :CROP_DRAWS],
                np.full(len(samples), height),
                np.full(len(samples), width),
                scale=view.crop_scale,
                ratio=view.crop_ratio,
            )
            crops.append(resized_crops(chosen, boxes, view.size, view.interpolation))
        return _Crops(samples, crops)

    def _crops_from_files(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator["_Crops"]:
        assert self._files is not None
        self._requests.now = (Request(epoch, self.share.of(batch), batch) for batch in batches)
        met: set[str] = set()
        for batch in self._files:
            met.update(name for name, _ in batch.bad)
            self._report(batch.bad, met, whole=len(batch.samples) > 0)
            yield _Crops(batch.samples.numpy(), batch.pictures)

    def _report(self, bad: Sequence[BadImage], met: Set[str], *, whole: bool) -> None:
        """Name each bad image once; stop if the batch is not whole, or too many were met in this epoch."""
        if not whole:
            skip = "no other image is left to take its place" if self.skips else "or type --on-bad-image skip"
            raise cannot_decode(self.source, bad[0], f"replace the file or move it away; {skip}")
        for name, reason in bad:
            if name not in self.bad:
                self.bad[name] = reason
                console.warn(f"skipped {name}: {reason}; another image takes its place")
        found = beyond_reason(len(self.bad), len(met), len(self.source), self.share.processes)
        if found:
            raise gone(self.source) or GrocoError(
                f"{found[0]:,} of {found[1]:,} images cannot be decoded, the last of them {bad[-1].name}",
                "more than one in a hundred: look at the files; groco data counts the bad ones",
            )

    def _finished(self, crops: Tensor, number: int, epoch: int, samples: NDArray[np.int64]) -> Tensor:
        view, draws = self.views[number], self._draws(epoch, number, samples)[:, CROP_DRAWS:]
        changes = draw_changes(view.photometric, draws[:, _AFFINE_DRAWS:])
        finished = torch.empty(crops.shape, device=self.device)
        together = max(1, _CACHED // crops[0].numel()) if self.device.type == "cpu" else len(crops)
        for start in range(0, len(crops), together):
            part = slice(start, start + together)
            images = crops[part].to(self.device, non_blocking=True)
            if not images.is_floating_point():
                images = images * (1 / 255)  # to float32 on the way
            images = images.to(self.dtype)
            if view.affine is not None:
                images = _turned(images, view.affine, draws[part, :_AFFINE_DRAWS])
            self.normalisation(changes.of(part).apply(images).float(), out=finished[part])
        return finished

    def _draws(self, epoch: int, view: int, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        count = CROP_DRAWS + _AFFINE_DRAWS + PHOTOMETRIC_DRAWS
        return uniforms(count, seed=self.seed, epoch=epoch, view=view, samples=samples)


def evaluation_batches(
    source: Source,
    transform: EvaluationTransform,
    *,
    batch_size: int,
    device: torch.device,
    workers: int,
    on_bad_image: str = "error",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image of a source once, in its order, as a trained encoder is shown it.

    Args:
        source: The images.
        transform: How they are shown.
        batch_size: Images a batch.
        device: Where they are wanted.
        workers: Processes that decode, for images in files.
        on_bad_image: "error", or "skip" to leave bad ones out.

    Yields:
        The images' numbers, int64 [b], and float32 [b, 3, crop, crop], normalised, on the device; b ≤ `batch_size`.

    Raises:
        GrocoError: If an image cannot be decoded and `on_bad_image` is "error".
    """
    if isinstance(source, MemorySource):
        batches: Iterator[tuple[Tensor, Tensor]] = (
            (torch.arange(start, start + len(images)), transform.pixels(images))
            for start in range(0, len(source), batch_size)
            for images in [source.images[start : start + batch_size]]
        )
    else:
        numbers = [range(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
        files = worker_loader(WholePictures(source, transform), numbers, workers, device)
        batches = _pictures_from_files(source, files, on_bad_image)
    for samples, pictures in batches:
        yield samples, transform.normalisation(pictures.to(device, non_blocking=True).float().div_(255))


class _Crops(NamedTuple):
    """The crops of a batch, one tensor [B, 3, size, size] a view, and whose they are."""

    samples: NDArray[np.int64]
    crops: list[Tensor]


def _pictures_from_files(
    source: Source, files: Iterable[Prepared], on_bad_image: str
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in files:
        if batch.bad and on_bad_image == "error":
            raise cannot_decode(source, batch.bad[0], "replace the file or move it away")
        if batch.pictures:
            yield batch.samples, batch.pictures[0]


def _turned(images: Tensor, settings: Affine, draws: NDArray[np.float64]) -> Tensor:
    u = torch.from_numpy(draws).to(images.device, images.dtype)
    low, high = settings.zoom
    return affine(
        images,
        (u[:, 0] * 2 - 1) * settings.rotation,
        low + u[:, 1] * (high - low),
        (u[:, 2:4] * 2 - 1) * settings.shift,
    )
