"""Where a view lies in its image: random boxes, batched crop-and-resize, rotation, zoom and shift.

Boxes are torchvision's `RandomResizedCrop` (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6).
Resizing along one axis is a linear map, so a batch of crops, each from its own box, is two small matrix products an
image, out = R X Cᵀ, on any device.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_TRIES = 10
CROP_DRAWS = 2 * _TRIES + 2
"""Uniform draws a box takes: the areas and the aspect ratios tried, then the place."""


def crop_boxes(
    draws: NDArray[np.float64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    *,
    scale: Sequence[float] | NDArray[np.float64],
    ratio: Sequence[float] | NDArray[np.float64],
) -> NDArray[np.int64]:
    """Random boxes as torchvision's `RandomResizedCrop.get_params` draws them.

    Of ten boxes, with uniform area and log-uniform aspect ratio, the first that fits is put at a uniform place. Where
    none fits, the box is the largest central one whose aspect ratio is allowed (the whole image if its own is).

    Args:
        draws: [B, CROP_DRAWS] uniform in [0, 1).
        heights: [B] heights of the images, pixels.
        widths: [B] widths of the images, pixels.
        scale: Smallest and largest share of the image's area, [2] for all or [B, 2].
        ratio: Narrowest and widest aspect ratio, width over height, likewise.

    Returns:
        [B, 4] boxes, each top, left, height, width.
    """
    for_area, for_ratio, for_place = np.split(draws, [_TRIES, 2 * _TRIES], axis=1)
    scale, ratio = np.atleast_2d(scale), np.atleast_2d(ratio)  # [1 or B, 2]
    smallest, largest, narrow, wide = (bound[:, None] for bound in (*scale.T, *np.log(ratio).T))
    area = (heights * widths)[:, None] * (smallest + (largest - smallest) * for_area)
    aspect = np.exp(narrow + (wide - narrow) * for_ratio)
    tried = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=-1)
    sizes = np.rint(np.concatenate([tried, _central_sizes(heights, widths, *ratio.T)], axis=1))  # [B, tries + 1, 2]

    image = np.stack([heights, widths], axis=-1)
    fits = ((sizes > 0) & (sizes <= image[:, None])).all(-1)
    fits[:, -1] = True
    first = fits.argmax(1)
    size = sizes[np.arange(len(sizes)), first].astype(np.int64)
    room = image - size
    corner = np.where((first == _TRIES)[:, None], room // 2, np.floor(for_place * (room + 1)).astype(np.int64))
    return np.concatenate([corner, size], axis=1)


def _central_sizes(
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    narrowest: NDArray[np.float64],
    widest: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Height and width of the largest box in each image whose aspect ratio is allowed; [B, 1, 2]."""
    tall = np.where(widths / heights < narrowest, widths / narrowest, heights)
    wide = np.where(widths / heights > widest, heights * widest, widths)
    return np.stack([tall, wide], axis=-1)[:, None]


def resized_crops(
    images: Tensor, boxes: Tensor | NDArray[np.int64], size: int, interpolation: str = "bicubic"
) -> Tensor:
    """Cut a box out of each image and resize it, antialiased, as torchvision's `resized_crop` does one by one.

    The filters are Pillow's: widened where an image shrinks, and seeing no pixel outside the box. Call it outside
    autocast, which would do the products in half precision.

    Args:
        images: [B, 3, H, W], uint8 or floating in [0, 1].
        boxes: [B, 4] top, left, height, width in pixels, inside the images.
        size: Side of the square that each box becomes, pixels.
        interpolation: "bilinear" (triangle) or "bicubic" (Keys's with a = -1/2).

    Returns:
        float32 [B, 3, size, size]; what bicubic overshoots is clamped to [0, 1].
    """
    top, left, height, width = torch.as_tensor(boxes).to(images.device, torch.float32).unbind(1)
    rows = _resize_matrices(top, height, images.shape[-2], size, _FILTERS[interpolation])
    columns = _resize_matrices(left, width, images.shape[-1], size, _FILTERS[interpolation])
    pixels = images.float() if images.is_floating_point() else images.float().div_(255)
    # One product of [3 H, W] an image is about twice as fast as three of [H, W].
    narrowed = torch.bmm(pixels.flatten(1, 2), columns.mT).view(*images.shape[:3], size)
    return (rows[:, None] @ narrowed).clamp_(0, 1)


def _resize_matrices(start: Tensor, length: Tensor, side: int, size: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """How much of each of `side` pixels is in each of `size` outputs, spread over the box; [B, size, side]."""
    scale = length / size
    centre = scale[:, None] * (torch.arange(size, device=start.device) + 0.5)
    pixel = torch.arange(side, device=start.device) - start[:, None]
    inside = (pixel >= 0) & (pixel < length[:, None])
    distance = (pixel[:, None] - centre[:, :, None] + 0.5) / scale.clamp(min=1)[:, None, None]
    weights = kernel(distance) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, equation 4 with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, far) * (x < 2)


_FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _triangle, "bicubic": _cubic}


def affine(images: Tensor, rotation: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Turn, zoom and then shift each image about its centre; bilinear, black where nothing lands.

    torchvision's `affine` without shear, each image with its own parameters.

    Args:
        images: [B, C, s, s], floating.
        rotation: [B] clockwise turn, radians.
        zoom: [B] factor, above 1 to enlarge.
        shift: [B, 2] to the right and downwards, as a share of half the width.

    Returns:
        [B, C, s, s], of the type of `images`.
    """
    # An output's place p comes from R⁻¹ (p - shift) / zoom, in coordinates from -1 to 1 with y downwards.
    zoom = zoom.float()
    cos, sin = torch.cos(rotation.float()) / zoom, torch.sin(rotation.float()) / zoom
    inverse = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    theta = torch.cat([inverse, -inverse @ shift.float()[:, :, None]], dim=2).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).to(images.dtype)
