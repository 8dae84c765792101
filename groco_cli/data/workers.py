"""What worker processes do: decode a picture once and cut all its views from it, or make it ready to be measured.

An error loses its type between processes, so a bad picture travels as its name and what the decoder said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from groco_cli.data.counter import uniforms
from groco_cli.data.crops import CROP_DRAWS, crop_boxes
from groco_cli.data.decoding import BadImageError
from groco_cli.data.sources import Source
from groco_cli.data.sources.base import Picture
from groco_cli.data.transforms import EvaluationTransform
from groco_cli.data.views import View

_SPARE = 1000  # substitutes tried before giving up: with one picture in a hundred bad, one is found at once
_TOGETHER = 32  # pictures opened at once, so that numpy draws many boxes in the time of a few
_GAP = 2  # how many times larger than its view a box stays when libjpeg makes a picture smaller


class BadImage(NamedTuple):
    """A picture that could not be decoded."""

    name: str
    reason: str


@dataclass(frozen=True)
class Request:
    """Which pictures a worker is to prepare.

    Args:
        epoch: Number of the epoch.
        samples: Their numbers, int64 [B].
        batch: All of the batch, other processes' too: what must not take a bad picture's place.
    """

    epoch: int
    samples: NDArray[np.int64]
    batch: NDArray[np.int64]


class Prepared(NamedTuple):
    """What a worker gives back.

    Args:
        samples: Numbers of the pictures, int64 [B]; of a substitute its own.
        pictures: uint8 [B, 3, size, size], one tensor a view.
        bad: What could not be decoded on the way.
    """

    samples: Tensor
    pictures: list[Tensor]
    bad: list[BadImage]


@dataclass
class CroppedViews(Dataset[Prepared]):
    """Decodes each picture once and crops every view of it; a view's box depends on (seed, epoch, sample, view) alone.

    Args:
        source: The pictures.
        views: How each view is drawn.
        seed: The run's.
        substitute: Whether another picture takes a bad one's place; otherwise the batch ends there.
    """

    source: Source
    views: tuple[View, ...]
    seed: int
    substitute: bool = False
    _scales: NDArray[np.float64] = field(init=False)
    _ratios: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._scales = np.array([view.crop_scale for view in self.views])
        self._ratios = np.array([view.crop_ratio for view in self.views])

    def __getitems__(self, request: Request) -> Prepared:
        """A whole batch; none where a picture is bad and no other may, or can, take its place."""
        count = len(request.samples)
        pictures = [torch.empty(count, 3, view.size, view.size, dtype=torch.uint8) for view in self.views]
        samples, bad = request.samples.copy(), list[BadImage]()
        for row, crops in enumerate(self._each(request.epoch, request.samples)):
            if isinstance(crops, BadImageError):
                bad.append(BadImage(crops.name, crops.reason))
                found = self._substitute(request, int(request.samples[row]), bad)
                if found is None:
                    return Prepared(torch.empty(0, dtype=torch.int64), [], bad)
                samples[row], crops = found
            for picture, crop in zip(pictures, crops, strict=True):
                picture[row] = crop
        return Prepared(torch.from_numpy(samples), pictures, bad)

    def crops(self, epoch: int, sample: int) -> list[Tensor]:
        """The views' crops of one picture, uint8 [3, size, size].

        Raises:
            BadImageError: If it cannot be decoded.
        """
        (crops,) = self._each(epoch, np.array([sample]))
        if isinstance(crops, BadImageError):
            raise crops
        return crops

    def boxes(self, epoch: int, samples: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each view lies in pictures of known height and width.

        Args:
            epoch: Number of the epoch.
            samples: Numbers of the pictures, [n].
            sizes: Their heights and widths, [n, 2].

        Returns:
            [n, views, 4] top, left, height, width.
        """
        images, count = len(samples), len(self.views)
        view = np.tile(np.arange(count), images)
        draws = uniforms(CROP_DRAWS, seed=self.seed, epoch=epoch, view=view, samples=samples.repeat(count))
        sides = sizes.repeat(count, axis=0).T
        scale, ratio = np.tile(self._scales, (images, 1)), np.tile(self._ratios, (images, 1))
        return crop_boxes(draws, *sides, scale=scale, ratio=ratio).reshape(images, count, 4)

    def _each(self, epoch: int, samples: NDArray[np.int64]) -> Iterator[list[Tensor] | BadImageError]:
        """The crops of one picture after another, or why there are none."""
        for start in range(0, len(samples), _TOGETHER):
            some = samples[start : start + _TOGETHER]
            opened = [self._opened(number) for number in some.tolist()]
            sizes = np.array([(1, 1) if isinstance(one, BadImageError) else one.size for one in opened])
            for picture, boxes in zip(opened, self.boxes(epoch, some, sizes), strict=True):
                yield picture if isinstance(picture, BadImageError) else self._cut(picture, boxes)

    def _opened(self, number: int) -> Picture | BadImageError:
        """A picture whose size is known."""
        try:
            picture = self.source.open(number)
            _ = picture.size
        except BadImageError as error:
            return error
        return picture

    def _cut(self, picture: Picture, boxes: NDArray[np.int64]) -> list[Tensor] | BadImageError:
        height, width = picture.size
        try:
            pixels = picture.pixels(_shrink(boxes, self.views))
        except BadImageError as error:
            return error
        if pixels.shape[1:] != (height, width):
            boxes = _scaled(boxes, pixels.shape[1] / height, pixels.shape[2] / width)
        return [_resized_crop(pixels, box, view) for box, view in zip(boxes.tolist(), self.views, strict=True)]

    def _substitute(self, request: Request, asked: int, bad: list[BadImage]) -> tuple[int, list[Tensor]] | None:
        """Another picture and its crops; adds to `bad` those that were tried in vain."""
        if not self.substitute or len(self.source) <= len(request.batch):
            return None
        for attempt in range(1, _SPARE):
            sample = self._outside(request, asked, attempt)
            try:
                return sample, self.crops(request.epoch, sample)
            except BadImageError as error:
                bad.append(BadImage(error.name, error.reason))
        return None

    def _outside(self, request: Request, bad: int, attempt: int) -> int:
        """A picture from outside the batch, for each bad one always the same."""
        for again in range(_SPARE):
            stream = -attempt - again * _SPARE  # beside the views, which count from 0
            draw = uniforms(1, seed=self.seed, epoch=request.epoch, view=stream, samples=np.array([bad]))
            number = int(draw[0, 0] * len(self.source))
            if number not in request.batch:
                return number
        return bad


@dataclass
class WholePictures(Dataset[Prepared]):
    """Makes pictures ready to be measured: decoded, resized, cropped; bad ones are left out.

    Args:
        source: The pictures.
        transform: How they are shown.
    """

    source: Source
    transform: EvaluationTransform

    def __getitems__(self, samples: Sequence[int]) -> Prepared:
        """Some pictures."""
        kept, pictures, bad = [], [], []
        for sample in samples:
            try:
                pictures.append(self.transform.pixels(self.source.load(sample)))
            except BadImageError as error:
                bad.append(BadImage(error.name, error.reason))
            else:
                kept.append(sample)
        return Prepared(torch.tensor(kept, dtype=torch.int64), [torch.stack(pictures)] if pictures else [], bad)


def _shrink(boxes: NDArray[np.int64], views: Sequence[View]) -> int:
    """How many times smaller libjpeg may make a picture so that every box stays twice as large as its view."""
    room = min(min(box[2:]) / (_GAP * view.size) for box, view in zip(boxes.tolist(), views, strict=True))
    return next((factor for factor in (8, 4, 2) if factor <= room), 1)


def _scaled(boxes: NDArray[np.int64], vertical: float, horizontal: float) -> NDArray[np.int64]:
    """Boxes in the pixels of a smaller picture, at most half a pixel off, which is a quarter of one of the view."""
    factors = np.array([vertical, horizontal])
    starts, ends = (
        np.rint(corner * factors).astype(np.int64) for corner in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:])
    )
    return np.concatenate([starts, ends - starts], axis=1)


def _resized_crop(image: Tensor, box: Sequence[int], view: View) -> Tensor:
    """What torchvision's `resized_crop` makes of a uint8 picture, without its checks."""
    top, left, height, width = box
    cut = image[None, :, top : top + height, left : left + width]
    if height == width == view.size:
        return cut[0]
    size = [view.size, view.size]
    return F.interpolate(cut, size, mode=view.interpolation, antialias=True, align_corners=False)[0]
