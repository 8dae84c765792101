"""The picture of how a run went: loss, similarities, learning rate and k-NN over epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from groco_cli.files import atomic_write

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # Okabe and Ito: safe for colour-blind eyes


def draw_curves(metrics: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw a run's metrics as a PNG.

    Args:
        metrics: The lines of its metrics.jsonl.
        path: Where to.
        title: What stands above it.
    """
    train = [line for line in metrics if line["kind"] == "train"]
    knn = [line for line in metrics if line["kind"] == "knn"]
    epochs = [line["epoch"] for line in train]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    loss, similarity, rate, score = figure.subplots(2, 2).flat
    loss.plot(epochs, [line["loss"] for line in train], color=_BLUE)
    loss.set_ylabel("loss")
    similarity.plot(epochs, [line["positive_similarity"] for line in train], color=_GREEN, label="positives")
    similarity.plot(epochs, [line["negative_similarity"] for line in train], color=_ORANGE, label="strongest negatives")
    similarity.set_ylabel("mean cosine similarity")
    similarity.legend(frameon=False)
    rate.plot(epochs, [line["learning_rate"] for line in train], color=_GREY)
    rate.set_ylabel("learning rate")
    if knn:
        score.plot(
            [line["epoch"] for line in knn], [100 * line["top1"] for line in knn], color=_BLUE, marker="o", markersize=4
        )
        for line, above in ((knn[0], -16), (knn[-1], 8)):
            score.annotate(
                f"{100 * line['top1']:.1f}",
                (line["epoch"], 100 * line["top1"]),
                textcoords="offset points",
                xytext=(0, above),
                ha="center",
            )
        best = max(knn, key=lambda line: line["top1"])
        if best not in (knn[0], knn[-1]):
            label = f"best: {100 * best['top1']:.1f}"
            score.plot(best["epoch"], 100 * best["top1"], "o", color=_ORANGE, fillstyle="none", ms=9, label=label)
            score.legend(frameon=False)
        score.margins(y=0.15)
        score.set_ylabel(f"k-NN top-1, % (k={knn[0]['k']})")
    else:
        score.text(0.5, 0.5, "no labels, no k-NN", ha="center", va="center", color=_GREY, transform=score.transAxes)
        score.set_yticks([])
    for axes in (loss, similarity, rate, score):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
