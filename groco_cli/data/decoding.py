"""Image files to pixels: JPEGs by libjpeg-turbo (simplejpeg), everything else, and odd JPEGs, by Pillow.

Both decode a JPEG to the same pixels; simplejpeg leaves out Pillow's copies.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from torch import Tensor

_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"
_PNG, _PNG_EXIF = b"\x89PNG\r\n", (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_PLAIN = ("YCbCr", "RGB", "Gray")
_UPRIGHT = 1  # EXIF's orientation of a picture that lies as it should
_ON_ITS_SIDE = (5, 6, 7, 8)


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


class _Head(NamedTuple):
    """What a file's head says: the size as it is stored, and whether libjpeg alone makes RGB of it as Pillow does."""

    height: int
    width: int
    plain_jpeg: bool


@dataclass(frozen=True)
class Encoded:
    """An image file's content, whose size is known before it is decoded.

    Args:
        content: The file.
        name: What an error calls it.
    """

    content: bytes
    name: str

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture, from the file's head alone.

        Raises:
            BadImageError: If the file is no image, or large beyond reason (a decompression bomb).
        """
        with _named(self.name):
            height, width, _ = self._head
            if height * width > (Image.MAX_IMAGE_PIXELS or height * width):
                raise ValueError(f"{height} × {width} pixels are a decompression bomb")
            return (width, height) if self._orientation in _ON_ITS_SIDE else (height, width)

    def pixels(self, shrink: int = 1) -> Tensor:
        """Decode to RGB, upright.

        Greyscale, palette, CMYK, alpha (dropped) and 16-bit pictures are converted; EXIF orientation is applied.

        Args:
            shrink: 2, 4 or 8 to let libjpeg make a JPEG so many times smaller while it decodes (its inverse DCT then
                gives block means), which takes less time; other files stay as large as they are.

        Returns:
            uint8 [3, H, W], its channels next to each other in memory.

        Raises:
            BadImageError: If the file is truncated, no image, or large beyond reason.
        """
        _ = self.size  # refuses bombs
        with _named(self.name):
            array = self._by_libjpeg(shrink) if self._head.plain_jpeg else None
            return torch.from_numpy(self._by_pillow() if array is None else array).permute(2, 0, 1)

    def _by_libjpeg(self, shrink: int) -> np.ndarray | None:
        """None for a file that is not quite right, on which Pillow has the last word."""
        height, width, _ = self._head
        least = (-(-height // shrink), -(-width // shrink)) if shrink > 1 else (0, 0)
        try:
            decoded = simplejpeg.decode_jpeg(self.content, "RGB", min_height=least[0], min_width=least[1])
        except ValueError:
            return None
        return _turned(decoded, self._orientation)

    def _by_pillow(self) -> np.ndarray:
        with _opened(self.content) as image:
            upright = ImageOps.exif_transpose(image)
            return np.array(_to_8_bit(upright).convert("RGB"))

    @cached_property
    def _head(self) -> "_Head":
        if self.content.startswith(_JPEG):
            try:
                height, width, colours, _ = simplejpeg.decode_jpeg_header(self.content)
            except ValueError:  # whatever is wrong, Pillow has the last word
                pass
            else:
                return _Head(height, width, colours in _PLAIN)
        with _opened(self.content) as image:
            width, height = image.size
        return _Head(height, width, False)

    @cached_property
    def _orientation(self) -> int:
        if self._head.plain_jpeg and self.content.find(_EXIF, 0, 1 << 16) < 0:
            return _UPRIGHT
        if self.content.startswith(_PNG) and not any(mark in self.content for mark in _PNG_EXIF):
            return _UPRIGHT  # Pillow would decode the whole of it before it says so
        with _opened(self.content) as image:
            orientation = image.getexif().get(Base.Orientation, _UPRIGHT)
        return orientation if isinstance(orientation, int) else _UPRIGHT


def decode(data: Path | bytes, name: str | None = None) -> Tensor:
    """Decode an image file to RGB, upright.

    Args:
        data: The file, or all that is in it.
        name: What an error calls it; a file's path where None.

    Returns:
        uint8 [3, H, W].

    Raises:
        BadImageError: If the file is missing, truncated, no image, or large beyond reason (a decompression bomb).
    """
    if isinstance(data, Path):
        return read(data).pixels()
    return Encoded(data, name or "image").pixels()


def read(path: Path) -> Encoded:
    """Read an image file, not decoding it.

    Raises:
        BadImageError: If it cannot be read.
    """
    with _named(str(path)):
        return Encoded(path.read_bytes(), str(path))


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """A picture as Pillow opens it, which warns of bombs (an error here) and of oddities of no consequence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # odd EXIF, palette transparency: the picture is there
        with Image.open(io.BytesIO(content)) as image:
            yield image


def format_of(content: bytes) -> str:
    """An image file's format by Pillow's name for it, such as "PNG"; "" where Pillow knows none.

    Every JPEG is a "JPEG", also one that has further pictures behind the first, as some cameras and phones write them.
    """
    if content.startswith(_JPEG):
        return "JPEG"
    with suppress(Exception), warnings.catch_warnings():  # of damaged files Pillow raises whatever it trips over
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(content)).format or ""
    return ""


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Give whatever goes wrong the image's name: of damaged files Pillow raises whatever it trips over."""
    try:
        yield
    except BadImageError:
        raise
    except OSError as error:
        # Pillow calls bytes by their place in memory, which tells nobody anything.
        unknown = isinstance(error, UnidentifiedImageError)
        raise BadImageError(name, "not an image" if unknown else error.strerror or str(error)) from error
    except Exception as error:
        raise BadImageError(name, str(error) or type(error).__name__) from error


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, 3] as EXIF's orientation says it should lie."""
    if orientation == _UPRIGHT:
        return pixels
    if orientation in _ON_ITS_SIDE:
        pixels = pixels.transpose(1, 0, 2)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits, where Pillow's own conversion would clip it."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def encode_png(image: Tensor) -> bytes:
    """A picture, uint8 [3, H, W], as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()
