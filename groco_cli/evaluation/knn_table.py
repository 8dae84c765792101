"""Results of k-NN side by side: for each k the encoders, and the paper's rows where the data are ImageNet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groco_cli import devices
from groco_cli.evaluation.comparison import Compared, recipe_notes, with_record_of_one
from groco_cli.evaluation.extraction import Extraction
from groco_cli.evaluation.knn import TEMPERATURE
from groco_cli.evaluation.paper import IMAGENET, PaperRow
from groco_cli.evaluation.protocol import KNNResult
from groco_cli.tables import Cell, Column, Comparison, Report, percent, printed
from groco_cli.wording import counted

_COLUMNS = (
    Column("encoder", "encoder"),
    Column("k", "k"),
    Column("top-1 %", "top1", best=1),
    Column("top-5 %", "top5", best=1),
    Column("correct", "correct"),
    Column("queries", "queries"),
)


def knn_report(
    compared: Sequence[Compared],
    results: Mapping[str, KNNResult],
    *,
    data: str,
    protocol: str,
    temperature: float,
    features: Extraction,
    figures: Sequence[Path | None],
    baselines: Mapping[str, KNNResult],
    paper: Sequence[PaperRow] | None,
) -> Report:
    """All that `groco knn` says of the encoders it compared.

    Args:
        compared: The encoders.
        results: Of each, by name.
        data: What they were scored on, for people.
        protocol: What was bank and what queries: "train/test", "leave-one-out" or "bank/queries".
        temperature: T of the votes' weights; infinite for votes that count alike.
        features: How features came to be.
        figures: Of each encoder, the picture that is drawn of its neighbours.
        baselines: What was scored beside them, by label.
        paper: The paper's rows; None where they were not asked for.
    """
    result = results[compared[0].name]
    encoders = [
        one.record()
        | {
            "knn": _scores(results[one.name]),
            "backend": results[one.name].backend,
            "recall": results[one.name].neighbours.recall,
            "figure": figure and str(figure),
        }
        for one, figure in zip(compared, figures, strict=True)
    ]
    facts = {
        "data": data,
        "protocol": protocol,
        "bank": result.bank,
        "queries": result.queries,
        "temperature": temperature if math.isfinite(temperature) else None,
        "device": devices.describe(features.device),
        "cache_dtype": features.cache_dtype,
    }
    record = with_record_of_one(facts, encoders)
    if baselines:
        record["baselines"] = {label: _scores(one) for label, one in baselines.items()}
    if paper is not None:
        record["paper"] = [row.record() for row in paper]
    weights = f"T {temperature}" if math.isfinite(temperature) else "votes unweighted"
    notes = _with_search(f"{weights}; {features}", {**baselines, **results})
    if paper:
        notes += [*paper_notes(result, temperature), *recipe_notes(compared)]
    return Report(
        record=record,
        title=f"k-NN on {data}, {protocol}: {counted(result.queries, 'query', 'queries')}, bank of {result.bank:,}",
        table=knn_table([*baselines.items(), *results.items()], paper or ()),
        notes=notes,
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
        asked = counted(result.queries, "query", "queries")
        lines.append(f"not the paper's images: {asked} here, bank of {result.bank:,}")
    if temperature != TEMPERATURE:
        lines.append(
            f"not the paper's votes: {f'T {temperature}' if math.isfinite(temperature) else 'unweighted'} here"
        )
    return lines


def _with_search(settings: str, results: Mapping[str, KNNResult]) -> list[str]:
    """What all have in common, and what searched: of each where it differs, as the recall of inexact searches does."""
    one, *others = {result.backend for result in results.values()}
    if not others:
        return [f"{settings}; search by {one}"]
    return [settings, *(f"{name}: search by {result.backend}" for name, result in results.items())]


def _scores(result: KNNResult) -> dict[str, Any]:
    """Scores for --json, by k."""
    return {str(k): asdict(score) for k, score in result.scores.items()}
