"""Image files to pixels."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


class BadImageError(ValueError):
    """A file that is no image, or a damaged one.

    Args:
        path: The file.
        reason: What the decoder said.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot decode {path}: {reason}")
        self.path = path
        self.reason = reason


def decode(path: Path) -> Tensor:
    """Decode an image file to RGB, upright.

    Greyscale, palette, CMYK, alpha (dropped) and 16-bit pictures are converted; EXIF orientation is applied.

    Returns:
        uint8 [3, H, W].

    Raises:
        BadImageError: If the file is missing, truncated, no image, or large beyond reason (a decompression bomb).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd EXIF, palette transparency: the picture is there
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = np.array(_to_8_bit(upright).convert("RGB"))
    except Exception as error:  # of damaged files Pillow raises whatever it trips over: TypeError, struct.error, …
        raise BadImageError(path, str(error) or type(error).__name__) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits, where Pillow's own conversion would clip it."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
