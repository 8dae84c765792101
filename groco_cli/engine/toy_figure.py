"""The picture of the toy experiment, after the paper's Figure 4."""

from textwrap import fill
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from groco_cli.engine.toy import ToyResult, ToyRun

POSITIVE = "#d55e00"  # vermilion; the negatives' greens to blues differ in lightness too
SOFT = "0.35"


def draw_toy(result: ToyResult) -> Figure:
    """Draw the figure: one panel a loss, each from its start to the margin.

    Args:
        result: The two runs.

    Returns:
        The figure, attached to no global state.
    """
    settings = result.settings
    height = max(4.4, 1.5 + 0.3 * len(settings.start))  # inches; room for the labels
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.08)
    figure = Figure(figsize=(10.5, height), layout=layout)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_run(left, result.groco, f"GroCo (β = {settings.beta:g})")
    _draw_run(right, result.infonce, f"InfoNCE (τ = {settings.temperature:g})")
    left.set_ylabel("similarity")
    for axes, run in ((left, result.groco), (right, result.infonce)):
        _label_ends(axes, run, gap=0.19 / (height - 1.5))
    positive, *negatives = map(_short, settings.start)
    caption = (
        f"Start (positive; negatives): {positive}; {', '.join(negatives)}. Gradient descent with learning "
        f"rate {settings.lr:g} until the positive leads by {settings.margin:g}.",
        f"The farthest negative moves by {_signed(result.groco.farthest_moved)} under GroCo with β = "
        f"{settings.beta:g}, and by {_signed(result.infonce.farthest_moved)} under InfoNCE with τ = "
        f"{settings.temperature:g}.",
    )
    figure.supxlabel(
        "\n".join(fill(sentence, 130) for sentence in caption),
        fontsize=9,
        color=SOFT,
    )
    return figure


def _draw_run(axes: Axes, run: ToyRun, title: str) -> None:

    values = run.trajectory.numpy()
    for i, colour in enumerate(_colours(len(run.start))):
        axes.plot(values[:, i], color=colour, linewidth=1.8 if i else 3, zorder=2 if i else 3)
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel("gradient step")
    axes.set_xlim(0, run.steps)
    axes.grid(color="0.92")
    axes.tick_params(color="0.7", labelcolor=SOFT)
    axes.spines[:].set_visible(False)
    ends = axes.get_yaxis_transform()  # x in parts of the panel, y a similarity
    positive, strongest = run.final[0], max(run.final[1:])
    arrow = {"arrowstyle": "<->", "color": SOFT, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (1, positive), (1, strongest), xycoords=ends, textcoords=ends, arrowprops=arrow)
    axes.text(
        0.97,
        (positive + strongest) / 2,
        f"margin\n{run.margin:.2f}",
        transform=ends,
        ha="right",
        va="center",
        color=SOFT,
        path_effects=[withStroke(linewidth=3, foreground="white")],  # readable where it crosses a curve
    )


def _label_ends(axes: Axes, run: ToyRun, gap: float) -> None:
    """Name each curve at its end, labels at least `gap` of the panel's height apart."""
    low, high = axes.get_ylim()
    ends = axes.get_yaxis_transform()
    places = _spread(run.final, gap * (high - low))
    for i, colour in enumerate(_colours(len(run.start))):
        axes.annotate(
            f"{_name(i)}  {_short(run.start[i])} → {_plain(run.final[i])}  ({_signed(run.moved[i])})",
            (1.005, run.final[i]),
            (1.05, places[i]),
            xycoords=ends,
            textcoords=ends,
            va="center",
            fontsize=9,
            fontweight="normal" if i else "bold",
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.8,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _spread(heights: list[float], gap: float) -> list[float]:
    """The places nearest to the heights, in the same order, that lie at least a gap apart (least squares).

    With the gaps taken off this is isotonic regression, solved by its max-min formula. What ends together
    keeps its own order, the first on top.
    """
    order = sorted(range(len(heights)), key=lambda i: (round(heights[i], 2), -i))
    bare = [heights[i] - rank * gap for rank, i in enumerate(order)]
    n = len(bare)
    places = [0.0] * n
    for rank, i in enumerate(order):
        pooled = (min(sum(bare[a:b]) / (b - a) for b in range(rank + 1, n + 1)) for a in range(rank + 1))
        places[i] = max(pooled) + rank * gap
    return places


def _colours(count: int) -> list[Any]:

    ramp = colormaps["viridis"]
    return [POSITIVE, *(ramp(0.62 - 0.48 * i / max(count - 2, 1)) for i in range(count - 1))]


def _name(i: int) -> str:
    return f"n{i}" if i else "positive"


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:z.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+z.3f}".replace("-", "−")
