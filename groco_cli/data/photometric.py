"""What a view does to an image's colours and sharpness, batched on any device, with each image's own parameters.

Every function equals torchvision's (`torchvision.transforms.v2.functional`) image by image. Parameters and masks lie on
the CPU, where choosing the images that an operation concerns costs no wait for a GPU.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor

from groco_cli.data.crops import filter_separably
from groco_cli.errors import UsageError

PHOTOMETRIC_DRAWS = 11
"""Uniform draws that `augment` takes an image."""

_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]: the operation at each place
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """How strong and how frequent each photometric change is; by default none is made but the flip.

    Args:
        brightness: Strength s: the factor is uniform in [max(0, 1 - s), 1 + s].
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest shift to either side, in turns, at most 0.5.
        jitter_probability: How often those four are applied, in a random order.
        grey_probability: How often an image loses its colours.
        blur_probability: How often it is blurred.
        blur_sigma: Smallest and largest standard deviation of the blur, pixels.
        solarise_probability: How often values from 128/255 are inverted.
        flip_probability: How often left and right change places.

    Raises:
        UsageError: If a setting is out of its range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_probability: float = 0.0
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        strengths = {"brightness": math.inf, "contrast": math.inf, "saturation": math.inf, "hue": 0.5}
        probabilities = {f"{name}_probability": 1.0 for name in ("jitter", "grey", "blur", "solarise", "flip")}
        for name, largest in {**strengths, **probabilities}.items():
            if not 0 <= getattr(self, name) <= largest:
                raise UsageError(f"{name} is {getattr(self, name)}, but must lie in [0, {largest}]")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise UsageError(f"blur_sigma is {self.blur_sigma}, but must be two ascending positive numbers")


def augment(images: Tensor, settings: Photometric, draws: NDArray[float64]) -> Tensor:
    """Flip, jitter colours, grey, blur and solarise each image at random, in DINO's order.

    The order is that of the official transforms (github.com/facebookresearch/dino, main_dino.py,
    `DataAugmentationDINO`). An image's result depends on its own draws alone.

    Args:
        images: [B, 3, H, W] in [0, 1], floating.
        settings: How strong and how frequent each change is.
        draws: [B, PHOTOMETRIC_DRAWS] uniform in [0, 1): for flip, jitter, its four strengths and their order, grey,
            blur, its sigma, and solarise.

    Returns:
        [B, 3, H, W], new.
    """
    flipped, jittered, brightness, contrast, saturation, hue, order, greyed, blurred, sigma, solarised = (
        torch.from_numpy(draws).unbind(1)
    )
    factors = (
        _jitter_factors(brightness, settings.brightness),
        _jitter_factors(contrast, settings.contrast),
        _jitter_factors(saturation, settings.saturation),
        settings.hue * (2 * hue - 1) if settings.hue else None,
    )
    low, high = settings.blur_sigma
    blur = partial(gaussian_blur, radius=math.ceil(3 * high))

    views = images.clone()
    _change(views, flipped < settings.flip_probability, _mirror)
    _jitter(views, factors, _ORDERS[(order * len(_ORDERS)).long()], jittered < settings.jitter_probability)
    _change(views, greyed < settings.grey_probability, _luma)
    _change(views, blurred < settings.blur_probability, blur, low + (high - low) * sigma)
    _change(views, solarised < settings.solarise_probability, _inverted_from)
    return views


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the masked images left to right: [B, 3, H, W], bool [B] to [B, 3, H, W]."""
    return _change(images.clone(), mask, _mirror)


def greyscale(images: Tensor, mask: Tensor) -> Tensor:
    """Turn the masked images grey (ITU-R 601 luma): [B, 3, H, W], bool [B] to [B, 3, H, W]."""
    return _change(images.clone(), mask, _luma)


def solarise(images: Tensor, mask: Tensor, threshold: float = 128 / 255) -> Tensor:
    """Invert the values of the masked images that reach the threshold.

    Args:
        images: [B, 3, H, W] in [0, 1].
        mask: [B] bool, on the CPU.
        threshold: By default 128/255, not 1/2: that of PIL's `ImageOps.solarize` (128) on 8-bit values.

    Returns:
        [B, 3, H, W].
    """
    return _change(images.clone(), mask, partial(_inverted_from, threshold=threshold))


def colour_jitter(images: Tensor, factors: Sequence[Tensor | None], order: Tensor, mask: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in an order of each image's own.

    Args:
        images: [B, 3, H, W] in [0, 1].
        factors: [B] for each of brightness, contrast, saturation and hue; None leaves that one out.
        order: [B, 4] which of the four (0 to 3) comes at each place, on the CPU.
        mask: [B] bool, which images are changed at all, on the CPU.

    Returns:
        [B, 3, H, W].
    """
    return _jitter(images.clone(), factors, order, mask)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image by its factor, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    return (images * _per_image(factors, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean luma, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    return _blend(images, _luma(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its luma, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    return _blend(images, _luma(images), factors)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn each image's hue by its shift, keeping HSV's saturation and value.

    Args:
        images: [B, 3, H, W] in [0, 1].
        shifts: [B] in [-0.5, 0.5], turns.

    Returns:
        [B, 3, H, W].
    """
    # Neither HSV nor a branch is needed, and comparisons are what is slow on a CPU. With max and min over the channels
    # and span = max - min, the hue's distance from red on the circle is linear in every sixth of it,
    #     distance = (1 + (g + b - r - min) / span) / 6,  on green's side if g > b, else on blue's,
    # and a colour of hue h, all in turns, is
    #     red = min - span + 6 span clamp(|h - 1/2|, 1/6, 1/3),
    #     green = max + span - 6 span clamp(|h - 1/3|, 1/6, 1/3), blue likewise about 2/3.
    sixth, third = 1 / 6, 1 / 3
    red, green, blue = images.float().unbind(1)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    highest = torch.maximum(torch.maximum(red, green), blue)
    span = highest - lowest
    slope = (6 * span).clamp_(min=_TINY)
    distance = (green - lowest).add_(blue - red).div_(slope).add_(sixth)
    turn = _per_image(1 + shifts, distance).squeeze(1)  # the whole turn keeps what frac_ sees positive
    hue = distance.copysign_(green - blue).add_(turn).frac_()

    below, above = lowest.sub_(span), highest.add_(span)
    out = torch.empty_like(images, dtype=torch.float32)
    torch.addcmul(below, (hue - 1 / 2).abs_().clamp_(sixth, third), slope, out=out[:, 0])
    torch.addcmul(above, (hue - third).abs_().clamp_(sixth, third), slope, value=-1, out=out[:, 1])
    torch.addcmul(above, (hue - 2 * third).abs_().clamp_(sixth, third), slope, value=-1, out=out[:, 2])
    return out.to(images.dtype)


def gaussian_blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Blur each image with its own Gaussian, mirrored at the border, as torchvision's `gaussian_blur` does.

    Args:
        images: [B, 3, H, W].
        sigmas: [B] standard deviations, pixels.
        radius: Where every kernel ends, pixels: torchvision's kernel size is 2 radius + 1. Three times the largest
            sigma leaves out 0.3 % of the Gaussian. An image that is too small to mirror so far takes a smaller one.

    Returns:
        [B, 3, H, W].
    """
    height, width = images.shape[-2:]
    sigmas = sigmas.to(images.device, torch.float32, non_blocking=True)
    rows = _blur_matrices(sigmas, height, radius).to(images.dtype)
    columns = rows if width == height else _blur_matrices(sigmas, width, radius).to(images.dtype)
    return filter_separably(images, rows, columns)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract each channel's mean and divide by its standard deviation: [B, C, H, W] to [B, C, H, W]."""
    centre, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (images - centre.to(images)).div_(spread.to(images))


def _jitter_factors(draws: Tensor, strength: float) -> Tensor | None:
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + (high - low) * draws if strength else None


def _jitter(images: Tensor, factors: Sequence[Tensor | None], order: Tensor, mask: Tensor) -> Tensor:
    """`colour_jitter` in place."""
    for place in range(len(_ADJUSTMENTS)):
        for number, (adjust, factor) in enumerate(zip(_ADJUSTMENTS, factors, strict=True)):
            if factor is not None:
                _change(images, mask & (order[:, place] == number), adjust, factor)
    return images


def _change(images: Tensor, mask: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Put `operation`'s result in the place of the masked images; the others cost nothing."""
    if mask.all():
        return images.copy_(operation(images, *parameters))
    chosen = mask.nonzero().squeeze(1)
    if len(chosen) == 0:
        return images
    index = chosen.to(images.device, non_blocking=True)
    changed = operation(images.index_select(0, index), *(values[chosen] for values in parameters))
    return images.index_copy_(0, index, changed.expand(-1, images.shape[1], -1, -1))


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1)


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)  # [B, 1, H, W]


def _inverted_from(images: Tensor, threshold: float = 128 / 255) -> Tensor:
    return torch.where(images >= threshold, 1 - images, images)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """Factor · images + (1 - factor) · other, cut to [0, 1]; writes over `other`."""
    other.mul_(_per_image(1 - factors, images))
    return torch.addcmul(other, images, _per_image(factors, images)).clamp_(0, 1)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)


def _blur_matrices(sigmas: Tensor, side: int, radius: int) -> Tensor:
    """Blurring along one axis as a matrix an image; [B, side, side]."""
    radius = min(radius, side - 1)
    offset = torch.arange(-radius, radius + 1, device=sigmas.device)
    kernels = torch.softmax(-0.5 * (offset / sigmas[:, None]) ** 2, dim=1)  # [B, taps]
    source = (torch.arange(side, device=sigmas.device) + offset[:, None]).abs()
    source = side - 1 - (side - 1 - source).abs()  # mirrored at both ends; [taps, side]
    return torch.tensordot(kernels, F.one_hot(source, side).to(kernels.dtype), dims=1)


_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
