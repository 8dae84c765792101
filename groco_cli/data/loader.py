"""Batches of images on the device: views to learn from, or whole pictures to measure.

Where pictures lie in memory, everything is done in batches on the device. Where they lie in files, worker processes
decode each once and crop all its views; uint8 goes to the device, which does the photometric part in batches.

A view depends on (seed, epoch, image, view) alone: not on the batch, the number of workers, or where a run was resumed.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from groco_cli.data.counter import uniforms
from groco_cli.data.crops import CROP_DRAWS, affine, crop_boxes, resized_crops
from groco_cli.data.decoding import BadImageError
from groco_cli.data.photometric import PHOTOMETRIC_DRAWS, augment, normalise
from groco_cli.data.sources import MemorySource, Source
from groco_cli.data.views import Affine, View
from groco_cli.errors import GrocoError

_AFFINE_DRAWS = 4


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise float images [B, 3, H, W] in [0, 1]."""
        return normalise(images, self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class EvaluationTransform:
    """How a picture is shown to a trained encoder: shorter side resized, centre cropped, normalised.

    Args:
        resize: Length of the shorter side, pixels; 256 for 224 as published.
        crop: Side of the square cut from the centre, pixels.
        normalisation: That of pre-training.
    """

    resize: int
    crop: int
    normalisation: Normalisation

    def pixels(self, image: Tensor) -> Tensor:
        """Resize (bicubic, antialiased) and crop; uint8 [..., 3, H, W] to uint8 [..., 3, crop, crop]."""
        if min(image.shape[-2:]) != self.resize:
            image = tvf.resize(image, [self.resize], interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        cropped: Tensor = tvf.center_crop(image, [self.crop, self.crop])
        return cropped


class ViewLoader:
    """Shuffled batches of augmented views, without end: one call of `epoch` an epoch.

    Each epoch takes `len(source) // batch_size` batches of a new order; what is over comes in later epochs.

    Args:
        source: The images.
        views: How each view is drawn.
        batch_size: Images a batch.
        normalisation: Applied last.
        seed: Of the order and of the views.
        device: Where the views are wanted.
        workers: Processes that decode, for images in files.
    """

    def __init__(
        self,
        source: Source,
        views: Sequence[View],
        *,
        batch_size: int,
        normalisation: Normalisation,
        seed: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.source, self.views, self.batch_size = source, tuple(views), batch_size
        self.normalisation, self.seed, self.device = normalisation, seed, device
        self._pictures = source.images.to(device) if isinstance(source, MemorySource) else None
        self._files = None
        if self._pictures is None:
            self._batches = _Batches()
            self._files = DataLoader(
                _CroppedViews(source, self.views, seed),
                batch_sampler=self._batches,
                collate_fn=_collate,
                num_workers=workers,
                pin_memory=device.type == "cuda",
                persistent_workers=workers > 0,
                worker_init_fn=_leave_interrupts_to_the_main_process,
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.source) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Tensor]]:
        """The batches of one epoch.

        Args:
            epoch: Number of the epoch, from 0.
            start: How many of its batches to pass over (where a resumed run goes on).

        Yields:
            One tensor a view, float32 [B, 3, size, size], normalised, on the device.

        Raises:
            GrocoError: If an image cannot be decoded.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.source))
        batches = order[: len(self) * self.batch_size].reshape(len(self), self.batch_size)[start:]
        crops = self._crops_from_memory if self._pictures is not None else self._crops_from_files
        for samples, pictures in crops(epoch, batches):
            yield [self._finish(crop, view, epoch, samples) for view, crop in enumerate(pictures)]

    def _crops_from_memory(self, epoch: int, batches: np.ndarray) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
        assert self._pictures is not None
        height, width = self._pictures.shape[-2:]
        for samples in batches:
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
            yield samples, crops

    def _crops_from_files(self, epoch: int, batches: np.ndarray) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
        assert self._files is not None
        self._batches.now = [[(epoch, int(sample)) for sample in samples] for samples in batches]
        for samples, pictures in zip(batches, _whole(self._files), strict=True):
            yield samples, [p.to(self.device, non_blocking=True).float().div_(255) for p in pictures]

    def _finish(self, images: Tensor, number: int, epoch: int, samples: np.ndarray) -> Tensor:
        """Everything after the crop, batched on the device."""
        view, draws = self.views[number], self._draws(epoch, number, samples)[:, CROP_DRAWS:]
        if view.affine is not None:
            images = _turned(images, view.affine, draws[:, :_AFFINE_DRAWS])
        return self.normalisation(augment(images, view.photometric, draws[:, _AFFINE_DRAWS:]))

    def _draws(self, epoch: int, view: int, samples: np.ndarray) -> np.ndarray:
        count = CROP_DRAWS + _AFFINE_DRAWS + PHOTOMETRIC_DRAWS
        return uniforms(count, seed=self.seed, epoch=epoch, view=view, samples=samples)


def evaluation_batches(
    source: Source, transform: EvaluationTransform, *, batch_size: int, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Every image of a source once, in its order, as a trained encoder is shown it.

    Yields:
        float32 [B, 3, crop, crop], normalised, on the device; the last batch may be smaller.

    Raises:
        GrocoError: If an image cannot be decoded.
    """
    if isinstance(source, MemorySource):
        pictures: Iterator[Tensor] = (
            transform.pixels(source.images[start : start + batch_size]) for start in range(0, len(source), batch_size)
        )
    else:
        numbers = [list(range(i, min(i + batch_size, len(source)))) for i in range(0, len(source), batch_size)]
        loader = DataLoader(
            _WholePictures(source, transform),
            batch_sampler=numbers,
            collate_fn=_collate,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )
        pictures = (batch for (batch,) in _whole(loader))
    for batch in pictures:
        yield transform.normalisation(batch.to(device, non_blocking=True).float().div_(255))


def default_workers(device: torch.device) -> int:
    """Worker processes where none are asked for: all cores but one beside a GPU, none beside a CPU's own work.

    Threads that compute on a CPU wait for each other actively, and a worker that takes the core of one makes all wait:
    decoding in between is much faster.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else max(1, min(16, cores - 1))


class _Batches:
    """A batch sampler whose batches are laid down anew for each epoch."""

    def __init__(self) -> None:
        self.now: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _CroppedViews(Dataset[list[Tensor] | BadImageError]):
    """What a worker does: decode an image once, crop every view of it; keyed by (epoch, sample)."""

    def __init__(self, source: Source, views: Sequence[View], seed: int) -> None:
        self.source, self.views, self.seed = source, views, seed

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor] | BadImageError:
        epoch, sample = key
        try:
            image = self.source.load(sample)
        except BadImageError as error:
            return error
        height, width = (np.array([side]) for side in image.shape[-2:])
        crops = []
        for number, view in enumerate(self.views):
            draws = uniforms(CROP_DRAWS, seed=self.seed, epoch=epoch, view=number, samples=np.array([sample]))
            ((top, left, tall, wide),) = crop_boxes(
                draws, height, width, scale=view.crop_scale, ratio=view.crop_ratio
            ).tolist()
            crops.append(
                tvf.resized_crop(
                    image,
                    top,
                    left,
                    tall,
                    wide,
                    [view.size, view.size],
                    interpolation=tvf.InterpolationMode(view.interpolation),
                    antialias=True,
                )
            )
        return crops


class _WholePictures(Dataset[list[Tensor] | BadImageError]):
    """What a worker does to measure: decode, resize, crop; keyed by the image's number."""

    def __init__(self, source: Source, transform: EvaluationTransform) -> None:
        self.source, self.transform = source, transform

    def __getitem__(self, sample: int) -> list[Tensor] | BadImageError:
        try:
            return [self.transform.pixels(self.source.load(sample))]
        except BadImageError as error:
            return error


def _collate(images: list[list[Tensor] | BadImageError]) -> list[Tensor] | tuple[str, str]:
    """One batch a view; or the first bad image, as (path, reason), since an error loses its type between processes."""
    for image in images:
        if isinstance(image, BadImageError):
            return str(image.path), image.reason
    return [torch.stack(views) for views in zip(*images, strict=True)]


def _whole(loader: DataLoader[list[Tensor] | BadImageError]) -> Iterator[list[Tensor]]:
    """A loader's batches, a bad image among them raised."""
    for batch in loader:
        if isinstance(batch, tuple):
            path, reason = batch
            raise GrocoError(f"cannot decode {path}: {reason}", "replace the file or move it away")
        yield batch


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """A terminal's Ctrl-C goes to every process; the one that trains still wants its batches to finish the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _turned(images: Tensor, settings: Affine, draws: np.ndarray) -> Tensor:
    u = torch.from_numpy(draws).to(images.device, images.dtype)
    low, high = settings.zoom
    return affine(
        images,
        (u[:, 0] * 2 - 1) * settings.rotation,
        low + u[:, 1] * (high - low),
        (u[:, 2:4] * 2 - 1) * settings.shift,
    )
