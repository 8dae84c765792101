"""What a view does to an image's colours and sharpness, batched on any device, with each image's own parameters.

Every function equals torchvision's (`torchvision.transforms.v2.functional`) image by image. Parameters and masks lie on
the CPU, where choosing the images that an operation concerns costs no wait for a GPU. Call them outside autocast, which
would blur in half precision.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groco_cli.errors import UsageError

PHOTOMETRIC_DRAWS = 11
"""Uniform draws that `augment` takes an image."""

_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]: the operation at each place
_BLOCK = 32  # pixels blurred by one matrix: fastest measured at 32 and at 224 pixels
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
        solarise_probability: How often the brighter half of its values is inverted.
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
                option = f"--{name.removesuffix('_probability')}"
                raise UsageError(f"{option} {getattr(self, name)} is out of range", f"type a number in [0, {largest}]")
        if not (len(self.blur_sigma) == 2 and 0 < self.blur_sigma[0] <= self.blur_sigma[1]):
            raise UsageError(f"--blur-sigma {self.blur_sigma} is out of range", "type --blur-sigma 0.1 2.0")


def augment(images: Tensor, settings: Photometric, draws: NDArray[np.float64]) -> Tensor:
    """Flip, jitter colours, grey, blur and solarise each image at random, in DINO's order.

    The order is that of the official transforms (github.com/facebookresearch/dino, main_dino.py,
    `DataAugmentationDINO`). An image's result depends on its own draws alone.

    Args:
        images: [B, 3, H, W] in [0, 1], floating.
        settings: How strong and how frequent each change is.
        draws: [B, PHOTOMETRIC_DRAWS] uniform in [0, 1): for flip, jitter, its four strengths and their order, grey,
            blur, its sigma, and solarise.

    Returns:
        [B, 3, H, W]; the images themselves where nothing happens to them.
    """
    columns = torch.from_numpy(draws).unbind(1)
    flipped, jittered, brightness, contrast, saturation, hue, order, greyed, blurred, sigma, solarised = columns
    factors = (
        _jitter_factors(brightness, settings.brightness),
        _jitter_factors(contrast, settings.contrast),
        _jitter_factors(saturation, settings.saturation),
        settings.hue * (2 * hue - 1) if settings.hue else None,
    )
    low, high = settings.blur_sigma
    orders = _ORDERS[(order * len(_ORDERS)).long()]
    images = _change(images, flipped < settings.flip_probability, _mirror)
    images = colour_jitter(images, factors, orders, jittered < settings.jitter_probability)
    images = _change(images, greyed < settings.grey_probability, _luma)
    images = _change(images, blurred < settings.blur_probability, gaussian_blur, low + (high - low) * sigma)
    return _change(images, solarised < settings.solarise_probability, _folded)


def flip(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the masked images left to right: [B, 3, H, W], bool [B] to [B, 3, H, W]."""
    return _change(images, mask, _mirror)


def greyscale(images: Tensor, mask: Tensor) -> Tensor:
    """Turn the masked images grey (ITU-R 601 luma): [B, 3, H, W], bool [B] to [B, 3, H, W]."""
    return _change(images, mask, _luma)


def solarise(images: Tensor, mask: Tensor) -> Tensor:
    """Invert the brighter half of the masked images' values: [B, 3, H, W] in [0, 1], bool [B] to [B, 3, H, W].

    torchvision's `solarize` at threshold 1/2, and PIL's `ImageOps.solarize` at its usual 128, since no 8-bit value lies
    between 1/2 and 128/255.
    """
    return _change(images, mask, _folded)


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
    orders = order[mask].tolist()
    for place in range(len(_ADJUSTMENTS)):
        for number in sorted({order[place] for order in orders}):
            factor = factors[number]
            if factor is not None:
                images = _change(images, mask & (order[:, place] == number), _ADJUSTMENTS[number], factor)
    return images


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image by its factor, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    return (images * _per_image(factors, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean luma, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return _blend(images, _luma(mean), factors)


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


def gaussian_blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each image with its own Gaussian, mirrored at the border, as torchvision's `gaussian_blur` does.

    A kernel ends at three sigmas, rounded up, beyond which 0.3 % of the Gaussian lie: torchvision's kernel size is
    twice that and one. A side too short to be mirrored so far takes a shorter one.

    PIL's `GaussianBlur`, three box blurs on 8 bits with the border's pixels repeated, is another function: on 60
    ImageNet photographs of 224 pixels the mean difference is 0.4 to 0.7 grey levels of 255 for each sigma from 0.25 to
    2, the largest 18 (at sigma 0.25; 5 from sigma 1 on), and up to 53 within 8 pixels of the border.

    Args:
        images: [B, 3, H, W].
        sigmas: [B] standard deviations, pixels; on the CPU, or reading the largest makes a GPU wait.

    Returns:
        [B, 3, H, W].
    """
    # Along each axis in turn, the windows that _BLOCK outputs see are multiplied by a banded matrix: a matrix product
    # is what every device does fastest, and blocks keep most of the matrix's zeros out of it.
    batch, channels, height, width = images.shape
    radius = math.ceil(3 * float(sigmas.max()))
    sigmas = sigmas.to(images.device, torch.float32, non_blocking=True)
    down, across = min(radius, height - 1), min(radius, width - 1)
    padded = F.pad(images, (across, across, down, down), mode="reflect")
    if height % _BLOCK or width % _BLOCK:
        padded = F.pad(padded, (0, -width % _BLOCK, 0, -height % _BLOCK))
    windows = padded.unfold(-1, _BLOCK + 2 * across, _BLOCK)  # [B, 3, rows, blocks, window]
    rows = torch.bmm(windows.flatten(1, 3), _blur_bands(sigmas, across).to(images.dtype))
    windows = rows.view(batch, channels, padded.shape[2], -1).unfold(-2, _BLOCK + 2 * down, _BLOCK).mT
    bands = _blur_bands(sigmas, down).to(images.dtype).mT
    blurred = bands[:, None, None] @ windows  # [B, 3, blocks, _BLOCK, columns]
    return blurred.flatten(2, 3)[..., :height, :width]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract each channel's mean and divide by its standard deviation: [B, C, H, W] to [B, C, H, W]."""
    centre, spread = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
    # One pass over the images instead of two: x / std - mean / std.
    return torch.addcmul((-centre / spread).to(images), images, (1 / spread).to(images))


def _jitter_factors(draws: Tensor, strength: float) -> Tensor | None:
    low, high = max(0.0, 1 - strength), 1 + strength
    return low + (high - low) * draws if strength else None


def _change(images: Tensor, mask: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Images with `operation`'s result in the place of the masked ones."""
    if len(images) == 1:  # as on a CPU, where what follows would take longer than some operations
        return operation(images, *parameters).expand_as(images) if mask else images
    chosen = mask.nonzero().squeeze(1)
    if len(chosen) == 0:
        return images
    if len(chosen) == len(images):
        return operation(images, *parameters).expand_as(images)
    index = chosen.to(images.device, non_blocking=True)
    changed = operation(images.index_select(0, index), *(values[chosen] for values in parameters))
    return images.index_copy(0, index, changed.expand(-1, images.shape[1], -1, -1))


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1)


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)  # [B, 1, H, W]


def _folded(images: Tensor) -> Tensor:
    return torch.minimum(images, 1 - images)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """Factor · images + (1 - factor) · other, cut to [0, 1]; writes over `other`."""
    other.mul_(_per_image(1 - factors, images))
    return torch.addcmul(other, images, _per_image(factors, images)).clamp_(0, 1)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)


def _blur_bands(sigmas: Tensor, radius: int) -> Tensor:
    """The matrix that blurs a window into _BLOCK outputs, one an image; [B, _BLOCK + 2 radius, _BLOCK]."""
    offset = torch.arange(-radius, radius + 1, device=sigmas.device)
    exponents = -0.5 * (offset / sigmas[:, None]) ** 2
    # Taps beyond three sigmas are left out, not only to be done with them: the smallest would be subnormal numbers,
    # with which a CPU is many times slower.
    beyond = offset.abs() > (3 * sigmas[:, None]).ceil()
    kernels = torch.softmax(exponents.masked_fill(beyond, -torch.inf), dim=1)  # [B, taps]
    return F.pad(kernels, (_BLOCK - 1, _BLOCK - 1)).unfold(1, _BLOCK, 1).flip(-1)


_ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
