"""Results of k-NN side by side: for each k the encoders, and the paper's rows where the data are ImageNet."""

import math
from collections.abc import Sequence

from groco_cli.evaluation.knn import TEMPERATURE
from groco_cli.evaluation.paper import IMAGENET, PaperRow
from groco_cli.evaluation.protocol import KNNResult
from groco_cli.tables import Cell, Column, Comparison, percent, printed

_COLUMNS = (
    Column("encoder", "encoder"),
    Column("k", "k"),
    Column("top-1 %", "top1", best=1),
    Column("top-5 %", "top5", best=1),
    Column("correct", "correct"),
    Column("queries", "queries"),
)


def knn_table(results: Sequence[tuple[str, KNNResult]], paper: Sequence[PaperRow] = ()) -> Comparison:
    """A group of rows for each k.

    Args:
        results: Of the same ks, by what each encoder is called.
        paper: Rows to put below, of those ks that they print.
    """

    def rows(k: int) -> list[list[Cell]]:
        scores = [(name, result.scores[k]) for name, result in results]
        measured: list[list[Cell]] = [
            [name, k, percent(s.top1), percent(s.top5), s.correct, s.total] for name, s in scores
        ]
        return measured + [[row.title, k, printed(row.knn[k]), None, None, None] for row in paper if k in row.knn]

    return Comparison(columns=_COLUMNS, groups=[rows(k) for k in results[0][1].scores])


def paper_notes(result: KNNResult, temperature: float) -> list[str]:
    """What has to be known to compare with the paper's rows, a line each.

    Args:
        result: One that stands beside them.
        temperature: T of its votes' weights.
    """
    _, bank, queries = IMAGENET
    lines = [
        f"paper: Tables 1 and 4 to 7, top-1 on ImageNet: {queries:,} queries, bank of {bank:,}, T {TEMPERATURE}; "
        "backbone ResNet-50 unless named; † as reproduced by SimSiam's authors, ‡ by GroCo's"
    ]
    if (result.bank, result.queries) != (bank, queries):
        lines.append(f"not the paper's images: {result.queries:,} queries here, bank of {result.bank:,}")
    if temperature != TEMPERATURE:
        lines.append(
            f"not the paper's votes: {f'T {temperature}' if math.isfinite(temperature) else 'unweighted'} here"
        )
    return lines
