"""The picture of how a run goes: loss, similarities, learning rate and k-NN over epochs."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from groco_cli import console
from groco_cli.engine.metrics import read_metrics
from groco_cli.figures import write_figure

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # Okabe and Ito: safe for colour-blind eyes
_SHARE = 0.02  # of the time, at most, goes into drawing while a run is trained

Lines = Sequence[Mapping[str, Any]]


class Curves:
    """Draws a run's picture while it is trained; where that fails it warns, and the run goes on.

    Args:
        metrics: The run's metrics.jsonl.
        path: Where the picture goes.
        title: What stands above it.
    """

    def __init__(self, metrics: Path, path: Path, title: str) -> None:
        self._metrics, self._path, self._title = metrics, path, title
        self._drawn = -1  # lines of the metrics that the picture shows; none is drawn yet
        self._took, self._ended = 0.0, time.monotonic()

    def redraw(self) -> None:
        """Draw it, unless it was drawn so lately that this would slow the run."""
        if self._took <= _SHARE * (time.monotonic() - self._ended):
            self.draw()

    def draw(self) -> None:
        """Draw it, if there is anything new to show."""
        lines, begun = read_metrics(self._metrics), time.monotonic()
        if len(lines) == self._drawn:
            return
        try:
            draw_curves(lines, self._path, self._title)
        except Exception as error:  # whatever matplotlib may raise: no picture is worth a run
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            console.warn(f"{self._path} could not be drawn ({reason}); training goes on")
        else:
            self._drawn = len(lines)
        self._ended = time.monotonic()
        self._took = self._ended - begun


def draw_curves(metrics: Lines, path: Path, title: str) -> None:
    """Draw a run's metrics as a PNG.

    Args:
        metrics: The lines of its metrics.jsonl.
        path: Where to.
        title: What stands above it.
    """
    train = [line for line in metrics if line["kind"] == "train"]
    knn = [line for line in metrics if line["kind"] == "knn"]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(console.printable(title), fontsize=11, parse_math=False)
    loss, similarity, rate, score = figure.subplots(2, 2).flat
    _draw_figures(loss, train, "loss", {"loss": ("", _BLUE)})
    similarities = {
        "positive_similarity": ("positives", _GREEN),
        "negative_similarity": ("strongest negatives", _ORANGE),
    }
    _draw_figures(similarity, train, "mean cosine similarity", similarities)
    similarity.legend(frameon=False)
    _draw_figures(rate, train, "learning rate", {"learning_rate": ("", _GREY)})
    if knn:
        _draw_scores(score, knn)
    else:
        score.text(0.5, 0.5, "no k-NN score", ha="center", va="center", color=_GREY, transform=score.transAxes)
        score.set_yticks([])
    for axes in (loss, similarity, rate, score):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)


def _draw_figures(axes: Axes, train: Lines, what: str, figures: Mapping[str, tuple[str, str]]) -> None:
    """Figures of training over epochs, each with its label and colour."""
    epochs = [line["epoch"] for line in train]
    marker = "o" if len(train) == 1 else ""  # a line through one point is not seen
    for name, (label, color) in figures.items():
        axes.plot(epochs, [line[name] for line in train], color=color, marker=marker, label=label)
    axes.set_ylabel(what)


def _draw_scores(axes: Axes, knn: Lines) -> None:
    """The k-NN scores, the first and the last with their figures, the best one circled."""
    axes.plot([line["epoch"] for line in knn], [_percent(line) for line in knn], color=_BLUE, marker="o", markersize=4)
    for line, above in ((knn[0], -16), (knn[-1], 8)):
        place = line["epoch"], _percent(line)
        axes.annotate(f"{place[1]:.1f}", place, textcoords="offset points", xytext=(0, above), ha="center")
    best = max(knn, key=_percent)
    if best not in (knn[0], knn[-1]):
        label = f"best: {_percent(best):.1f}"
        axes.plot(best["epoch"], _percent(best), "o", color=_ORANGE, fillstyle="none", ms=9, label=label)
        axes.legend(frameon=False)
    axes.margins(y=0.15)
    axes.set_ylabel(f"k-NN top-1, % (k={knn[0]['k']})")


def _percent(line: Mapping[str, Any]) -> float:
    return 100 * float(line["top1"])
