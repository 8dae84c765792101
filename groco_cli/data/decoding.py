"""Image files to pixels."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


class BadImageError(ValueError):
    """A file that is no image, or a damaged one.

    Args:
        name: What to call it: its path, or "shard.tar:key".
        reason: What the decoder said.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot decode {name}: {reason}")
        self.name = name
        self.reason = reason

    @property
    def path(self) -> Path:
        """The name as a path."""
        return Path(self.name)


def decode(data: Path | bytes, name: str | None = None) -> Tensor:
    """Decode an image file to RGB, upright.

    Greyscale, palette, CMYK, alpha (dropped) and 16-bit pictures are converted; EXIF orientation is applied.

    Args:
        data: The file, or all that is in it.
        name: What an error calls it; a file's path where None.

    Returns:
        uint8 [3, H, W].

    Raises:
        BadImageError: If the file is missing, truncated, no image, or large beyond reason (a decompression bomb).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd EXIF, palette transparency: the picture is there
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = np.array(_to_8_bit(upright).convert("RGB"))
    except Exception as error:  # of damaged files Pillow raises whatever it trips over: TypeError, struct.error, …
        # Pillow calls bytes by their place in memory, which tells nobody anything.
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise BadImageError(name or ("image" if isinstance(data, bytes) else str(data)), reason) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits, where Pillow's own conversion would clip it."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
