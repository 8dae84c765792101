"""Results of retrieval side by side: for each setup the encoders, and the paper's Table 2 for its two sets."""

import math
from collections.abc import Mapping
from typing import Any

from groco_cli.evaluation.paper import RETRIEVAL
from groco_cli.evaluation.retrieval import KAPPAS, SETUPS
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.evaluation.retrieval_search import RetrievalResult
from groco_cli.tables import Cell, Column, Comparison, Figure, percent, printed

_COLUMNS = (
    Column("encoder", "encoder"),
    Column("setup", "setup"),
    Column("mAP %", "mean_ap", best=1),
    *(Column(f"mP@{k} %", f"mean_precision_{k}", best=1) for k in KAPPAS),
    Column("queries", "queries"),
)
Printed = Mapping[str, Mapping[str, str]]
"""mAP as the paper prints it, per cent, by method and setup."""


def table_2(dataset: str) -> Printed:
    """The paper's rows for a set; none for any but its two."""
    return RETRIEVAL.get(dataset, {})


def score_table(results: Mapping[str, RetrievalResult], paper: Printed | None = None) -> Comparison:
    """A group of rows for each setup.

    Args:
        results: By what each encoder is called.
        paper: Rows to put below; Table 2 has mAP of medium and hard alone.
    """

    def rows(setup: str) -> list[list[Cell]]:
        scores = [(name, result.scores[setup]) for name, result in results.items()]
        shown = [(method, by_setup[setup]) for method, by_setup in (paper or {}).items() if setup in by_setup]
        measured: list[list[Cell]] = [
            [name, setup, _share(s.mean_ap), *map(_share, s.mean_precision), s.num_queries] for name, s in scores
        ]
        return measured + [
            [f"paper: {method}", setup, printed(ap), *[None] * len(KAPPAS), None] for method, ap in shown
        ]

    return Comparison(columns=_COLUMNS, groups=[rows(setup) for setup in SETUPS])


def score_record(result: RetrievalResult) -> dict[str, Any]:
    """Scores for --json; null where no query has a right image."""

    def finite(share: float) -> float | None:
        return None if math.isnan(share) else share

    return {
        "scores": {
            setup: {
                "mean_ap": finite(score.mean_ap),
                "mean_precision": dict(zip(map(str, KAPPAS), map(finite, score.mean_precision), strict=True)),
                "num_queries": score.num_queries,
            }
            for setup, score in result.scores.items()
        }
    }


def paper_notes(used: RetrievalProtocol, published: RetrievalProtocol, distractors: int) -> list[str]:
    """What has to be known to compare with Table 2, a line each.

    Args:
        used: How features were taken.
        published: What its name stands for.
        distractors: Number of further wrong pictures in the database.
    """
    altered = used != published or used.name != "dino" or distractors
    return ["paper: Table 2, ResNet-50, 2×224; as DINO evaluates, without distractors"] + (
        ["not the paper's protocol here"] if altered else []
    )


def _share(share: float) -> Figure | None:
    """None where no query counts."""
    return None if math.isnan(share) else percent(share)
