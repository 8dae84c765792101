"""Draw docs/images/permutation.png: P for a small list at three inverse temperatures (docs/losses.md)."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from groco_cli.sorting import SortingNetwork

POSITIVES = 2


def draw() -> Figure:
    """Two positives and four negatives, one of which is nearer than the farther positive."""
    import torch

    distances = torch.tensor([[-0.9, -0.4, -0.6, -0.3, -0.1, 0.2]])
    size = distances.shape[1]
    names = [f"$d^+_{i + 1}$" if i < POSITIVES else f"$d^-_{i + 1 - POSITIVES}$" for i in range(size)]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, beta in zip(figure.subplots(1, 3), (1.0, 8.0, 100.0), strict=True):
        network = SortingNetwork(size, beta=beta)
        matrix = network.sort(distances)[1][0]
        mass = network.group_mass(distances, POSITIVES)[0]
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        for place in range(size):
            for element in range(size):
                value = float(matrix[place, element])
                axes.text(
                    element,
                    place,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="w" if value > 0.6 else "k",
                )
        axes.add_patch(
            Rectangle((-0.5, -0.5), size, POSITIVES, fill=False, edgecolor="#D55E00", linewidth=2, clip_on=False)
        )
        labels = [f"{n}\n{d:.1f}\n{m:.2f}" for n, d, m in zip(names, distances[0].tolist(), mass.tolist(), strict=True)]
        axes.set_xticks(range(size), labels)
        axes.set_yticks(range(size), [str(place + 1) for place in range(size)])
        axes.set_title(f"β = {beta:g}")
        axes.set_ylabel("place" if beta == 1.0 else "")
        axes.set_xlabel("distance, and mass in the two front places")
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("images") / "permutation.png", dpi=110)
