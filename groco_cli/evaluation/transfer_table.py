"""Results of transfer for people and spreadsheets: sets downwards, encoders side by side, and the paper's Table 3."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groco_cli import devices
from groco_cli.data.sources.transfer import TRANSFER_SETS, Failed, Missing
from groco_cli.errors import GrocoError
from groco_cli.evaluation.comparison import Compared
from groco_cli.evaluation.extraction import Extraction
from groco_cli.evaluation.transfer import Outcome, Results, TransferScore, average, common_scores
from groco_cli.evaluation.transfer_linear import PROTOCOL, linear_notes
from groco_cli.tables import Report, of_texts

_OF_TABLE_3 = (
    "MoCo v2 to GroCo: the paper's Table 3, averaged over the same sets (ResNet-50 after 200, 400, 100, 400 and 400 "
    "epochs of ImageNet, k = 20; in which measure it does not say)"
)
_TABLE_3 = {
    "MoCo v2": (20.1, 78.9, 12.3, 86.9, 61.4, 68.7, 67.3, 47.2, 67.2, 46.9, 73.9),
    "SimCLR": (19.3, 77.7, 15.3, 85.4, 61.0, 70.2, 72.5, 51.2, 68.2, 49.0, 73.1),
    "SimSiam": (25.4, 80.1, 17.3, 87.4, 65.5, 69.3, 77.3, 52.5, 72.5, 50.0, 72.8),
    "SwAV": (25.8, 82.2, 17.8, 88.6, 66.0, 71.1, 74.8, 50.3, 70.4, 52.9, 75.6),
    "GroCo": (27.6, 81.2, 19.1, 86.8, 65.8, 71.0, 79.2, 56.3, 80.6, 52.3, 74.6),
}
TABLE_3 = {method: dict(zip(TRANSFER_SETS, row, strict=True)) for method, row in _TABLE_3.items()}
"""The paper's k-NN accuracies as printed, per cent, by method and set."""


def transfer_report(
    compared: Sequence[Compared],
    outcomes: Mapping[str, Results],
    *,
    root: Path,
    k: int,
    temperature: float,
    features: Extraction,
    paper: bool,
) -> Report:
    """All that `groco transfer` says of the encoders it compared.

    Args:
        compared: The encoders.
        outcomes: Of each, by name: by classifier ("k-NN", "linear") and set.
        root: Where the sets are.
        k: Number of neighbours.
        temperature: T of the votes' weights; infinite for votes that count alike.
        features: How features came to be.
        paper: Whether to put Table 3 beside them.
    """
    results = by_column(outcomes)
    backend = _backend(outcomes)
    encoders = [
        one.record() | {"classifier": classifier} | _record(results, _column(one.name, classifier))
        for one in compared
        for classifier in outcomes[one.name]
    ]
    record = {
        "data_root": str(root),
        "k": k,
        "temperature": temperature if math.isfinite(temperature) else None,
        "device": devices.describe(features.device),
        "cache_dtype": features.cache_dtype,
        "backend": backend or None,
        "encoders": encoders,
    }
    lines = [f"{features}; search by {backend or 'nothing'}"]
    if paper:
        record["paper"] = TABLE_3
    if len(results) > len(compared):
        record["linear"] = PROTOCOL
        lines += [PROTOCOL, *linear_notes(results)]
    head, *rows = csv_rows(results, paper=paper)
    return Report(
        record=record,
        title=f"Transfer by k-NN, k = {k}, T {temperature:g}",
        table=of_texts(*table_rows(results, paper=paper)),
        notes=[*lines, *notes(results, paper=paper)],
        spreadsheet=of_texts(head, rows),
    )


def by_column(outcomes: Mapping[str, Results]) -> Results:
    """The outcomes of each encoder and classifier, by what their column is called."""
    return {
        _column(name, classifier): of_classifier
        for name, of_encoder in outcomes.items()
        for classifier, of_classifier in of_encoder.items()
    }


def table_rows(results: Results, *, paper: bool) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table, the last one an average over the sets that all encoders were measured on.

    Args:
        results: At least one encoder's.
        paper: Whether to put Table 3 beside them, averaged over the same sets.
    """
    printed = TABLE_3 if paper else {}
    measures = ("top-1 %", "mean per class %")
    columns = [f"{name} {measure}" if len(results) > 1 else measure for name in results for measure in measures]
    rows = [
        [
            name,
            *(cell for outcomes in results.values() for cell in _cells(outcomes[name])),
            *(f"{figures[name]:.1f}" for figures in printed.values()),
        ]
        for name in next(iter(results.values()))
    ]
    scores = common_scores(results)
    common = list(next(iter(scores.values())))
    if common:
        rows.append(
            [
                f"average of {len(common)} of {len(TRANSFER_SETS)} sets",
                *(f"{100 * share:.2f}" for of_encoder in scores.values() for share in average(of_encoder)),
                *(f"{sum(figures[name] for name in common) / len(common):.2f}" for figures in printed.values()),
            ]
        )
    return ["set", *columns, *printed], rows


def notes(results: Results, *, paper: bool) -> list[str]:
    """What has to be known to read the table rightly, a line each.

    Args:
        results: At least one encoder's.
        paper: Whether Table 3 is in it.
    """
    lines = [_OF_TABLE_3] if paper else []
    for name in next(iter(results.values())):
        outcomes = [of_encoder[name] for of_encoder in results.values()]
        score = next((one for one in outcomes if isinstance(one, TransferScore)), None)
        if score:
            lines += _remarks(name, score)
        if isinstance(outcomes[0], Missing):
            lines.append(f"{name} is missing: there is no {listed(outcomes[0])}")
    return lines


def failures(results: Results) -> dict[str, GrocoError]:
    """What went wrong, by set, and by encoder too where not all met with the same."""
    found: dict[str, GrocoError] = {}
    for name in next(iter(results.values())):
        outcomes = {encoder: of_encoder[name] for encoder, of_encoder in results.items()}
        errors = {encoder: one.error for encoder, one in outcomes.items() if isinstance(one, Failed)}
        if len(errors) == len(outcomes) and len({error.message for error in errors.values()}) == 1:
            found[name] = next(iter(errors.values()))
        else:
            found |= {f"{name}, {encoder}": error for encoder, error in errors.items()}
    return found


def csv_rows(results: Results, *, paper: bool = False) -> list[list[str]]:
    """A head and a row for each encoder and set; shares in [0, 1], empty where there is none.

    Args:
        results: At least one encoder's.
        paper: Whether to put Table 3 below, in a column of its own: its measure is unknown.
    """
    head = ["encoder", "set", "outcome", "top1", "mean_per_class", "bank", "queries"]
    rows = []
    for encoder, outcomes in results.items():
        for name, one in outcomes.items():
            if isinstance(one, TransferScore):
                figures = [repr(one.top1), repr(one.mean_per_class), str(one.bank), str(one.queries)]
                rows.append([encoder, name, one.remark or "whole", *figures])
            else:
                rows.append([encoder, name, type(one).__name__.lower(), "", "", "", ""])
    if not paper:
        return [head, *rows]
    printed = [
        [f"paper: {method}", name, "printed", "", "", "", "", repr(float(f"{figures[name]}e-2"))]
        for method, figures in TABLE_3.items()
        for name in next(iter(results.values()))
    ]
    return [[*head, "printed"], *([*row, ""] for row in rows), *printed]


def listed(missing: Missing, most: int = 3) -> str:
    """The files that a set lacks, in a few words."""
    more = len(missing.wanted) - most
    return ", ".join(map(str, missing.wanted[:most])) + (f" and {more} more" if more > 0 else "")


def _backend(outcomes: Mapping[str, Results]) -> str:
    """What searched; several where one had to take over, none where no set was searched."""
    searched = [one for of_encoder in outcomes.values() for one in of_encoder["k-NN"].values()]
    return "; ".join(dict.fromkeys(one.backend for one in searched if isinstance(one, TransferScore)))


def _column(encoder: str, classifier: str) -> str:
    return encoder if classifier == "k-NN" else f"{encoder}, {classifier}"


def _record(results: Results, column: str) -> dict[str, Any]:
    """The outcomes of a column for --json; the average is null where no set was measured."""
    outcomes, common = results[column], common_scores(results)[column]
    top1, mean = average(common) if common else (None, None)
    return {
        "sets": {name: asdict(one) for name, one in outcomes.items() if isinstance(one, TransferScore)},
        "failed": {name: one.error.message for name, one in outcomes.items() if isinstance(one, Failed)},
        "missing": {name: list(map(str, one.wanted)) for name, one in outcomes.items() if isinstance(one, Missing)},
        "average": {"sets": list(common), "top1": top1, "mean_per_class": mean},
    }


def _cells(outcome: Outcome) -> Sequence[str]:
    if isinstance(outcome, TransferScore):
        return f"{100 * outcome.top1:.2f}", f"{100 * outcome.mean_per_class:.2f}"
    return type(outcome).__name__.lower(), ""


def _remarks(name: str, score: TransferScore) -> list[str]:
    lines = [f"{name}: {score.remark}"] if score.remark else []
    if score.multi_label:
        lines.append(f"{name}: top-1 is the hit rate, mean per class the 11-point mAP")
    if score.absent:
        shown = f"{', '.join(score.absent[:5])}{', …' * (len(score.absent) > 5)}"
        lines.append(f"{name}: without a test image, not counted: {shown}")
    return lines
