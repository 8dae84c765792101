"""What the paper prints for other encoders and its own: Tables 1, 2 and 4 to 7 (Table 3 is in `transfer_table`).

Figures are kept as printed, per cent. † marks SimSiam's improved reproductions, ‡ the authors' own. A row that several
tables print stands here once. Table 8 (ablations of GroCo alone) is left to `groco recipes`.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from groco_cli.data.sources import Dataset
from groco_cli.models import EncoderMetadata

IMAGENET = (1_000, 1_281_167, 50_000)
"""ImageNet-1k's classes, training and validation images."""
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of Tables 1 and 4 to 7, measured on ImageNet.

    Args:
        tables: Where it stands.
        method: As the paper calls it.
        backbone: "ResNet-50" or "ViT-S".
        views: Of an image.
        epochs: Of pre-training.
        batch_size: Of pre-training, images.
        knn: Top-1 of the weighted k-NN by k; only what is printed.
        linear: Top-1, perhaps top-5, of the linear probe; empty where not printed.
        recipe: groco's recipe for it; empty where there is none.
    """

    tables: str
    method: str
    backbone: str
    views: str
    epochs: int
    batch_size: int
    knn: Mapping[int, str]
    linear: tuple[str, ...]
    recipe: str = ""

    @property
    def title(self) -> str:
        """What a comparison calls it."""
        backbone = "" if self.backbone == "ResNet-50" else f", {self.backbone}"
        return f"paper: {self.method}{backbone}, {self.views}, {self.epochs} ep"

    def record(self) -> dict[str, Any]:
        """The row for --json, figures as numbers, per cent."""
        scores = {"knn": {str(k): float(score) for k, score in self.knn.items()}}
        return asdict(self) | scores | {"linear": [float(score) for score in self.linear]}


def _knn(*scores: str) -> dict[int, str]:
    """Of k = 1, 10 and 20, of 20 alone, or of none; "" where not printed."""
    ks = {0: (), 1: (20,), 3: (1, 10, 20)}[len(scores)]
    return {k: score for k, score in zip(ks, scores, strict=True) if score}


def _rows_of_epochs(
    tables: str, method: str, batch_size: int, knn: Sequence[str], linear: Sequence[str], views: str = "2×224"
) -> list[PaperRow]:
    """The rows that Tables 1 and 4 write as one: after 100, 200 and 400 epochs; "" where not printed."""
    return [
        PaperRow(
            tables=tables,
            method=method,
            backbone="ResNet-50",
            views=views,
            epochs=epochs,
            batch_size=batch_size,
            knn=_knn(score),
            linear=(top1,) if top1 else (),
            recipe=_recipe(method, views, epochs),
        )
        for epochs, score, top1 in zip((100, 200, 400), knn, linear, strict=True)
        if score or top1
    ]


def _row_of_100(
    tables: str, method: str, knn: str, linear: str, views: str = "2×224", backbone: str = "ResNet-50", recipe: str = ""
) -> PaperRow:
    """A row of Tables 5 to 7: 100 epochs, batch 1,024, k = 1, 10, 20, top-1 and top-5 of the linear probe."""
    return PaperRow(
        tables=tables,
        method=method,
        backbone=backbone,
        views=views,
        epochs=100,
        batch_size=1024,
        knn=_knn(*knn.split()),
        linear=tuple(linear.split()),
        recipe=recipe or _recipe(method, views, 100),
    )


def _recipe(method: str, views: str, epochs: int) -> str:
    """Groco's recipe for GroCo and for the authors' SimCLR."""
    names = {"GroCo": "groco", "SimCLR‡": "simclr"}
    drawn = "multicrop" if "+" in views else f"{views[0]}views"
    return f"{names[method]}-{drawn}-{epochs}ep" if method in names else ""


_NONE = ("", "", "")
_CROPS = "2×224 + 6×96"
ROWS: tuple[PaperRow, ...] = (
    # Table 1, and what Tables 4 and 5 print besides.
    *_rows_of_epochs("1", "Max-Margin", 256, _NONE, ("63.8", "", "")),
    *_rows_of_epochs("1", "MoCo v2†", 256, _NONE, ("67.4", "69.9", "71.0")),
    *_rows_of_epochs("1", "MoCo v2", 256, ("", "55.6", ""), _NONE),
    *_rows_of_epochs("1", "SimCLR†", 4096, ("53.8", "57.2", "59.2"), ("66.5", "68.3", "69.8")),
    *_rows_of_epochs("1", "SimSiam", 256, ("57.4", "", ""), ("68.1", "70.0", "70.8")),
    *_rows_of_epochs("1", "VICReg", 2048, _NONE, ("68.6", "", "")),
    *_rows_of_epochs("1", "Barlow Twins", 2048, _NONE, ("68.7", "", "")),
    *_rows_of_epochs("1", "SwAV†", 4096, _NONE, ("66.5", "69.1", "70.7")),
    *_rows_of_epochs("1", "SwAV", 4096, ("", "", "61.3"), _NONE),
    *_rows_of_epochs("1", "ReSSL", 256, _NONE, ("", "69.9", "")),
    *_rows_of_epochs("1", "BYOL†", 4096, _NONE, ("66.5", "70.6", "73.2")),
    *_rows_of_epochs("1", "Whitening", 4096, _NONE, ("69.4", "", "72.6"), "4×224"),
    *_rows_of_epochs("4", "SwAV", 4096, ("61.7", "63.7", "64.9"), ("72.1", "73.9", "74.6"), _CROPS),
    # Table 5
    _row_of_100("5", "SimCLR", "", "64.3"),
    _row_of_100("5", "SimCLR‡", "46.0 51.5 51.9", "65.7 86.7"),
    _row_of_100("5", "SimCLR‡", "44.7 50.0 50.6", "65.8 86.8", "3×224"),
    _row_of_100("5", "SimCLR‡", "46.3 52.1 52.6", "66.5 87.1", "4×224"),
    _row_of_100("5", "SimCLR‡", "46.6 51.4 52.0", "67.2 87.7", _CROPS),
    # Table 7
    _row_of_100("7", "Triplet, margin 0.8", "46.8 52.5 52.8", "63.9 85.4", recipe="triplet-margin-0.8"),
    _row_of_100("7", "Triplet, margin 1.6", "47.9 53.4 53.7", "64.2 85.3", recipe="triplet-margin-1.6"),
    _row_of_100("7", "Triplet, margin ∞", "47.9 53.3 53.8", "64.3 85.3", recipe="triplet-margin-inf"),
    # Table 6
    _row_of_100("6", "MoCo v3", "61.5 66.6 66.8", "70.9 90.2", backbone="ViT-S", recipe="mocov3-vits-100ep"),
    _row_of_100("6", "GroCo", "63.1 67.6 67.5", "70.8 89.7", backbone="ViT-S", recipe="groco-mocov3-vits-100ep"),
    # GroCo, of Tables 1, 4, 5 and 7.
    _row_of_100("1, 5, 7", "GroCo", "55.3 60.3 60.5", "69.2 88.4"),
    *_rows_of_epochs("1", "GroCo", 1024, ("", "62.9", "64.0"), ("", "70.4", "71.1")),
    _row_of_100("5", "GroCo", "55.8 61.2 61.6", "69.5 88.8", "3×224"),
    _row_of_100("1, 5", "GroCo", "56.4 61.5 61.8", "69.6 88.9", "4×224"),
    *_rows_of_epochs("1", "GroCo", 1024, ("", "63.6", "64.8"), ("", "70.6", "71.3"), "4×224"),
    _row_of_100("4, 5", "GroCo", "57.2 62.0 62.3", "71.8 90.4", _CROPS),
    *_rows_of_epochs("4", "GroCo", 1024, ("", "64.2", "65.2"), ("", "72.9", "73.7"), _CROPS),
)
RETRIEVAL: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    name: {
        method: dict(zip(("medium", "hard"), figures[first : first + 2], strict=True))
        for method, figures in {
            "SimSiam, 100 epochs": ("26.89", "7.04", "46.92", "19.31"),
            "MoCo v2, 200 epochs": ("23.28", "5.07", "42.8", "17.33"),
            "SimCLR, 400 epochs": ("23.27", "4.56", "46.93", "20.19"),
            "SwAV, 400 epochs": ("28.01", "8.35", "46.23", "17.4"),
            "GroCo, 400 epochs": ("29.37", "7.11", "54.95", "26.26"),
        }.items()
    }
    for first, name in ((0, "roxford5k"), (2, "rparis6k"))
}
"""Table 2: mAP by set, method and setup; ResNet-50, 2×224."""


def imagenet_rows(encoders: Sequence[EncoderMetadata]) -> list[PaperRow]:
    """The rows of Tables 1 and 4 to 7 for the backbones that are compared, or all where the paper has none of them.

    Args:
        encoders: What is compared.
    """
    backbones = {_backbone(encoder.arch) for encoder in encoders}
    return [row for row in ROWS if row.backbone in backbones] or list(ROWS)


def is_imagenet(dataset: Dataset) -> bool:
    """Whether a data set is ImageNet-1k, by name, by its classes' names, or by its numbers of images."""
    classes, images, held_out = IMAGENET
    if dataset.test is None or len(dataset.train.classes) != classes:
        return False
    by_name = dataset.name == "imagenet" or all(map(_WORDNET.fullmatch, dataset.train.classes))
    return by_name or (len(dataset.train), len(dataset.test)) == (images, held_out)


def row_of_recipe(metadata: EncoderMetadata) -> PaperRow | None:
    """The paper's row for the recipe that an encoder was trained by, other options than the recipe's unlooked at."""
    try:
        recipe = tomllib.loads(metadata.settings).get("recipe")
    except tomllib.TOMLDecodeError:
        return None
    return next((row for row in ROWS if recipe and row.recipe == recipe), None)


def _backbone(arch: str) -> str:
    name = arch.rpartition(":")[2]
    return "ViT-S" if name.startswith("vit_small") else "ResNet-50" if name == "resnet50" else name
