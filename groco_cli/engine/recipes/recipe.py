"""What a recipe is: settings, their purpose, and what they gave."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from groco_cli.engine.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """What the paper prints for a row, in per cent; on ImageNet where nothing else is said.

    Args:
        tables: Where it stands, such as ("1", "8a").
        knn: Weighted k-NN, top-1, by k: of 1, 10 and 20 those that are printed.
        linear_top1: Linear probing.
        linear_top5: Likewise; None where it is not printed.
        retrieval: Mean average precision by data set and split (Table 2).
        transfer: k-NN on other data sets (Table 3).
    """

    tables: tuple[str, ...]
    knn: Mapping[int, float]
    linear_top1: float
    linear_top5: float | None = None
    retrieval: Mapping[str, float] = field(default_factory=dict)
    transfer: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings with their purpose.

    Args:
        purpose: What it is for, in a line.
        settings: The settings; they bear the recipe's name.
        paper: What the paper has for it, if anything.
        expected: What it gives with groco, where that was measured.
        note: Where a setting comes from that the paper does not print.
    """

    purpose: str
    settings: PretrainSettings
    paper: PaperResult | None = None
    expected: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """What `--recipe` takes."""
        return self.settings.recipe
