"""What is done to images' colours and sharpness, batched on any device, with each image's own parameters.

Every function equals torchvision's (`torchvision.transforms.v2.functional`) image by image. Parameters and masks lie on
the CPU, where choosing the images that an operation concerns costs no wait for a GPU. Call them outside autocast, which
would blur in half precision.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32  # pixels blurred by one matrix: fastest measured at 32 and at 224 pixels
_TINY = 1e-12


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
        numbers = {order[place] for order in orders}
        for number in sorted(numbers):
            factor = factors[number]
            if factor is not None:
                here = mask & (order[:, place] == number) if len(numbers) > 1 else mask
                images = _change(images, here, _ADJUSTMENTS[number], factor)
    return images


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image by its factor, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    return (images * _per_image(factors, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean luma, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    grey = _luma(images.mean(dim=(2, 3), keepdim=True)).mul_(_per_image(1 - factors, images))
    # Not `addcmul`: with two of its operands constant over an image a CPU does not vectorise it.
    return (images * _per_image(factors, images)).add_(grey).clamp_(0, 1)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its luma, cut to [0, 1]: [B, 3, H, W], [B] to [B, 3, H, W]."""
    grey = _luma(images).mul_(_per_image(1 - factors, images))
    return torch.addcmul(grey, images, _per_image(factors, images)).clamp_(0, 1)


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


def gaussian_blur(images: Tensor, sigmas: Tensor, mask: Tensor) -> Tensor:
    """Blur the masked images, each with its own Gaussian, mirrored at the border, as torchvision's `gaussian_blur`.

    A kernel ends at three sigmas, rounded up, beyond which 0.3 % of the Gaussian lie: torchvision's kernel size is
    twice that and one. A side too short to be mirrored so far takes a shorter one.

    PIL's `GaussianBlur`, three box blurs on 8 bits with the border's pixels repeated, is another function: on 60
    ImageNet photographs of 224 pixels the mean difference is 0.4 to 0.7 grey levels of 255 for each sigma from 0.25 to
    2, the largest 18 (at sigma 0.25; 5 from sigma 1 on), and up to 53 within 8 pixels of the border.

    Args:
        images: [B, 3, H, W].
        sigmas: [B] standard deviations, pixels; on the CPU, or reading the largest makes a GPU wait.
        mask: [B] bool.

    Returns:
        [B, 3, H, W].
    """
    return _change(images, mask, _blurred, sigmas)


def _blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    # Along each axis in turn, the windows that _BLOCK outputs see are multiplied by a banded matrix: a matrix product
    # is what every device does fastest, and blocks keep most of the matrix's zeros out of it.
    batch, channels, height, width = images.shape
    radius = math.ceil(3 * float(sigmas.max()))
    sigmas = sigmas.to(images.device, non_blocking=True)
    down, across = min(radius, height - 1), min(radius, width - 1)
    padded = F.pad(images, (across, across, down, down), mode="reflect")
    if height % _BLOCK or width % _BLOCK:
        padded = F.pad(padded, (0, -width % _BLOCK, 0, -height % _BLOCK))
    windows = padded.unfold(-1, _BLOCK + 2 * across, _BLOCK)  # [B, 3, rows, blocks, window]
    bands = _blur_bands(sigmas, across).to(images.dtype)  # [B, window, _BLOCK]
    rows = torch.bmm(windows.flatten(1, 3), bands)
    windows = rows.view(batch, channels, padded.shape[2], -1).unfold(-2, _BLOCK + 2 * down, _BLOCK).mT
    if down != across:
        bands = _blur_bands(sigmas, down).to(images.dtype)
    blurred = bands.mT[:, None, None] @ windows  # [B, 3, blocks, _BLOCK, columns]
    return blurred.flatten(2, 3)[..., :height, :width]


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
