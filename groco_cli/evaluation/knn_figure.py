"""A picture of k-NN: queries, each with its nearest neighbours in a row, framed by whether they show its class."""

from textwrap import shorten

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from groco_cli import console
from groco_cli.data.sources import Dataset, Source
from groco_cli.evaluation.neighbours import Neighbours

RIGHT, WRONG = "#009e73", "#d55e00"  # told apart by the colour-blind too, and said by a sign besides
SOFT = "0.35"
QUERIES, NEIGHBOURS = 10, 10
_CELL = 0.92  # inches a picture, and its caption's
_CAPTION = 0.17
_SIDE = 96  # pixels that a picture is shrunk to, about what is printed of it


def draw_neighbours(
    dataset: Dataset, neighbours: Neighbours, title: str, *, queries: int = QUERIES, most: int = NEIGHBOURS
) -> Figure:
    """Draw some of the queries, taken evenly from all of them, with the nearest of the bank.

    Args:
        dataset: Labelled; its training images are the bank, its test images (or those of the bank) the queries.
        neighbours: Found for each query.
        title: What stands above.
        queries: Rows at most.
        most: Neighbours a row at most.

    Returns:
        The figure, attached to no global state.
    """
    bank, asked = dataset.train, dataset.test or dataset.train
    shown = spread(len(neighbours.rows), queries)
    columns = min(most, neighbours.rows.shape[1])
    width, height = (columns + 1.35) * _CELL, len(shown) * (_CELL + _CAPTION) + 0.75
    figure = Figure(figsize=(max(width, 5.0), height), layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.04))
    heading = console.printable(title)
    figure.suptitle(heading, fontsize=10, fontweight="bold", x=0.01, ha="left", parse_math=False)
    grid = figure.subplots(len(shown), columns + 2, squeeze=False, width_ratios=[1, 0.25, *[1] * columns])
    for axes, query in zip(grid, shown, strict=True):
        label = _label(asked, query)
        name = shorten(console.printable(asked.classes[label]), 16, placeholder="…")
        _draw(axes[0], asked, query, name, "0.15")
        axes[1].set_axis_off()
        found = zip(axes[2:], neighbours.rows[query].tolist(), neighbours.similarities[query].tolist(), strict=False)
        for place, row, similarity in found:
            right = _label(bank, row) == label
            _draw(place, bank, row, f"{'✓' if right else '✗'} {similarity:.3f}", RIGHT if right else WRONG)
            _frame(place, RIGHT if right else WRONG)
    grid[0][0].set_title("query", fontsize=8, color=SOFT)
    grid[0][2].set_title("nearest", fontsize=8, color=SOFT)
    figure.supxlabel(
        "✓ of the query's class, ✗ of another; the figure is the cosine similarity", fontsize=8, color=SOFT
    )
    return figure


def spread(total: int, count: int) -> list[int]:
    """At most `count` numbers below `total`, evenly apart, the middle of as many equal parts."""
    count = min(total, count)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _label(source: Source, number: int) -> int:
    assert source.labels is not None
    return int(source.labels[number])


def _draw(axes: Axes, source: Source, number: int, caption: str, colour: str) -> None:
    axes.imshow(_small(source.load(number)).permute(1, 2, 0).numpy())
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(caption, fontsize=8, color=colour, labelpad=3, parse_math=False)


def _frame(axes: Axes, colour: str) -> None:
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(colour)
    axes.spines[:].set_linewidth(2.5)


def _small(image: Tensor) -> Tensor:
    """A picture no larger than is printed of it, uint8 [3, h, w]."""
    factor = _SIDE / max(image.shape[1:])
    if factor >= 1:
        return image
    size = [max(1, round(factor * side)) for side in image.shape[1:]]
    resized = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).to(torch.uint8)
