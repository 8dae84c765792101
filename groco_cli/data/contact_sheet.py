"""A picture of pictures and of the views they become, to look at an augmentation before a run is spent on it.

A line shows a picture, in it where each view was cut, and behind it the views, as the `ViewLoader` draws them for
(seed, epoch, picture): not normalised, pixel for pixel, or enlarged by a whole number where they are small.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from groco_cli import console
from groco_cli.data.decoding import BadImageError
from groco_cli.data.loader import ViewLoader
from groco_cli.data.sources import Source, evenly_spread
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import View
from groco_cli.data.workers import CroppedViews

# Okabe and Ito's colours, which those who see fewer tell apart too; one a view, from the ninth on from the first again.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#f0e442", "#999999")
_BACKGROUND, _INK, _SOFT, _EDGE = "#ffffff", "#000000", "#5a5a5a", "#c0c0c0"
_COMFORTABLE = 160  # pixels: views are enlarged to about so much
_MARGIN, _GAP, _BAR = 16, 10, 5
_TEXT, _LINE = 12, 17  # size of the letters, and from line to line
_CAPTION = 2 * _LINE + 6


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """What to show, and how large.

    Args:
        source: The pictures.
        views: How each view is drawn, global ones first.
        global_views: How many of them are global.
        rows: Pictures, evenly spread over the source.
        epochs: How many epochs' views are shown of each, a line an epoch.
        seed: The run's.
        dtype: What colours and blur are computed in.
        title: The first line above.
    """

    source: Source
    views: tuple[View, ...]
    global_views: int
    rows: int
    epochs: int
    seed: int
    title: str
    dtype: torch.dtype = torch.float32

    @property
    def scale(self) -> int:
        """How many times larger than in training a view is shown."""
        return max(1, round(_COMFORTABLE / max(view.size for view in self.views)))

    @property
    def cell(self) -> int:
        """Side of the square that holds a picture, pixels."""
        return max(_COMFORTABLE, max(view.size for view in self.views) * self.scale)

    @property
    def head(self) -> int:
        """Height of what stands above the lines, pixels."""
        return _MARGIN + _LINE * (len(self.legend) + 2) + 2 * _GAP + _BAR

    @property
    def width(self) -> int:
        """Of the sheet, pixels."""
        return self.column(len(self.views)) - _GAP + _MARGIN

    @property
    def legend(self) -> list[str]:
        """The lines above: what is shown, and what is done to the views."""
        shown = f"views enlarged {self.scale} times" if self.scale > 1 else "views pixel for pixel"
        frames = ", frames where views were cut" if any(min(view.crop_scale) < 1 for view in self.views) else ""
        alike: dict[tuple[str, View], list[str]] = {}
        for number, view in enumerate(self.views):
            kind, place = self.name(number).split()
            alike.setdefault((kind, view), []).append(place)
        said = [
            f"{console.printable(self.title)}; seed {self.seed}; {shown}; pictures made to fit{frames}",
            *(f"{kind} {', '.join(places)}: {view}" for (kind, view), places in alike.items()),
        ]
        return [line for text in said for line in _wrapped(text, self.width - 2 * _MARGIN)]

    def name(self, view: int) -> str:
        """What a view is called."""
        is_global = view < self.global_views
        return f"global {view + 1}" if is_global else f"local {view - self.global_views + 1}"

    def column(self, view: int) -> int:
        """Where a view's column begins, pixels from the left."""
        widths = (max(view.size * self.scale, _COMFORTABLE // 2) + _GAP for view in self.views[:view])
        return _MARGIN + self.cell + _GAP + sum(widths)

    def line(self, number: int) -> int:
        """Where a line begins, pixels from the top."""
        tallest = max(round(_scale(picture, self.cell) * picture.shape[1]) for picture in self.pictures.values())
        return self.head + number * (max(self.cell, tallest + _CAPTION) + 2 * _GAP)

    @cached_property
    def pictures(self) -> dict[int, Tensor]:
        """Those that are shown, uint8 [3, H, W], by their number; in a broken one's place is the next that is whole."""
        return _sound_pictures(self.source, self.rows)

    def draw(self) -> Image.Image:
        """The sheet."""
        pictures = self.pictures
        drawn = [self._views(epoch, np.array(list(pictures))) for epoch in range(self.epochs)]
        sheet = Image.new("RGB", (self.width, self.line(len(pictures) * self.epochs) - _GAP), _BACKGROUND)
        self._draw_head(ImageDraw.Draw(sheet))
        for row, (number, picture) in enumerate(pictures.items()):
            for epoch, views in enumerate(drawn):
                top = self.line(row * self.epochs + epoch)
                framed = self._framed(picture, epoch, number)
                _paste(framed, sheet, _MARGIN, top)
                self._draw_caption(ImageDraw.Draw(sheet), top + framed.height + 2, number, epoch, picture)
                for view, images in enumerate(views):
                    _paste(self._enlarged(images[row]), sheet, self.column(view), top)
        return sheet

    def _views(self, epoch: int, numbers: NDArray[np.int64]) -> list[Tensor]:
        """The views of some pictures; [rows, 3, size, size] in [0, 1] each."""
        others = np.setdiff1d(np.arange(len(self.source)), numbers)
        loader = ViewLoader(
            self.source,
            self.views,
            batch_size=len(numbers),
            order=lambda _: np.concatenate([numbers, others]),
            normalisation=Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            seed=self.seed,
            device=torch.device("cpu"),
            workers=0,
            dtype=self.dtype,
        )
        return next(loader.epoch(epoch))

    def _enlarged(self, view: Tensor) -> Image.Image:
        image = to_pillow(view.clamp(0, 1).mul(255).round().to(torch.uint8))
        return image.resize((image.width * self.scale, image.height * self.scale), Image.Resampling.NEAREST)

    def _framed(self, picture: Tensor, epoch: int, number: int) -> Image.Image:
        """A picture made to fit, each view's box in its colour but for those that are all of it."""
        height, width = picture.shape[1:]
        factor = _scale(picture, self.cell)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        fitted = to_pillow(picture).resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
        boxes = CroppedViews(self.source, self.views, self.seed).boxes(
            epoch, np.array([number]), np.array([[height, width]])
        )[0]
        for view, (top, left, tall, wide) in reversed([*enumerate(boxes.tolist())]):
            if (tall, wide) != (height, width):
                ends = left, top, left + wide, top + tall
                x0, y0, x1, y1 = (round(end * factor) for end in ends)
                ImageDraw.Draw(fitted).rectangle(
                    (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_colour(view), width=2
                )
        return fitted

    def _draw_head(self, draw: ImageDraw.ImageDraw) -> None:
        for number, text in enumerate(self.legend):
            draw.text((_MARGIN, _MARGIN + number * _LINE), text, _INK, _font())
        bottom = self.head - _GAP // 2
        for number, view in enumerate(self.views):
            x = self.column(number)
            draw.text((x, bottom - _BAR - 2 * _LINE), self.name(number), _INK, _font())
            draw.text((x, bottom - _BAR - _LINE), f"{view.size} px", _SOFT, _font())
            draw.rectangle((x, bottom - _BAR, x + view.size * self.scale - 1, bottom - 2), _colour(number))

    def _draw_caption(self, draw: ImageDraw.ImageDraw, top: int, number: int, epoch: int, picture: Tensor) -> None:
        height, width = picture.shape[1:]
        name = console.printable(self.source.name_of(number))
        draw.text((_MARGIN, top), _shortened(name, self.cell), _INK, _font())
        draw.text((_MARGIN, top + _LINE), f"{width} × {height}, epoch {epoch}", _SOFT, _font())


def to_pillow(image: Tensor) -> Image.Image:
    """Of uint8 [3, H, W]."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _paste(picture: Image.Image, sheet: Image.Image, left: int, top: int) -> None:
    """Put a picture in its place, with a line around it, since it may be as white as the sheet."""
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=_EDGE)
    sheet.paste(picture, (left, top))


def _sound_pictures(source: Source, count: int) -> dict[int, Tensor]:
    """Pictures evenly spread over the source, by their number; in a broken one's place the next that is whole."""
    found: dict[int, Tensor] = {}
    for start in evenly_spread(len(source), count).tolist():
        for number in range(start, len(source)):
            if number in found:
                continue
            try:
                found[number] = source.load(number)
            except BadImageError:
                continue
            break
    return found


def _scale(picture: Tensor, side: int) -> float:
    """How many times larger a picture may be drawn to fit a square; small ones by a whole number."""
    factor = side / max(picture.shape[1:])
    return int(factor) if factor >= 1 else factor


def _colour(view: int) -> str:
    return COLOURS[view % len(COLOURS)]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of about a width, pixels."""
    letters = 0.97 * width * len(text) / _font().getlength(text)
    return wrap(text, max(10, int(letters)), subsequent_indent="    ")


def _shortened(text: str, width: int) -> str:
    """The end of a text, which of a path says most."""
    while _font().getlength(text) > width:
        text = "…" + text[2:]
    return text


@cache
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's, which has every letter that is used, and is there on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _TEXT)
