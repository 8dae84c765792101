"""Results of retrieval side by side: for each setup the encoders, and the paper's Table 2 for its two sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groco_cli import devices
from groco_cli.evaluation.comparison import Compared
from groco_cli.evaluation.extraction import Extraction
from groco_cli.evaluation.paper import RETRIEVAL
from groco_cli.evaluation.retrieval import KAPPAS, SETUPS
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.evaluation.retrieval_search import RetrievalResult
from groco_cli.evaluation.retrieval_set import RetrievalSet
from groco_cli.tables import Cell, Column, Comparison, Figure, Report, percent, printed
from groco_cli.wording import counted

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


def retrieval_report(
    compared: Sequence[Compared],
    results: Mapping[str, RetrievalResult],
    data: RetrievalSet,
    used: RetrievalProtocol,
    published: RetrievalProtocol,
    features: Extraction,
    *,
    html: Path | None,
    paper: Printed | None,
) -> Report:
    """All that `groco retrieve` says of the encoders it compared.

    Args:
        compared: The encoders.
        results: Of each, by name.
        data: What was searched.
        used: How features were taken.
        published: What its name stands for.
        features: How they were come by.
        html: The page that shows what was found, where one is written.
        paper: Rows of the paper's; None where they were not asked for.
    """
    record = {
        "dataset": data.name,
        "images": len(data.images),
        "distractors": len(data.distractors),
        "queries": len(data.queries),
        "protocol": asdict(used) | {"whiten": used.whiten and str(used.whiten), "altered": used != published},
        "device": devices.describe(features.device),
        "cache_dtype": features.cache_dtype,
        "backend": _backend(results),
        "encoders": [one.record() | score_record(results[one.name]) for one in compared],
        "html": html and str(html),
    }
    if paper is not None:
        record["paper"] = {method: {setup: float(ap) for setup, ap in row.items()} for method, row in paper.items()}
    settings = retrieval_settings(compared, results, data, used, published, features)
    notes = [f"{name}: {value}" for name, value in settings.items()]
    if paper:
        notes += paper_notes(used, published, len(data.distractors))
    return Report(
        record=record,
        title=f"Retrieval on {data.name}: {counted(len(data.queries), 'query', 'queries')}",
        table=score_table(results, paper),
        notes=notes,
    )


def retrieval_settings(
    compared: Sequence[Compared],
    results: Mapping[str, RetrievalResult],
    data: RetrievalSet,
    used: RetrievalProtocol,
    published: RetrievalProtocol,
    features: Extraction,
) -> dict[str, str]:
    """All that the scores depend on, in words, by name; the arguments are `retrieval_report`'s."""
    encoders = {
        f"encoder {one.name}": f"{one.path}, {about.arch}, {about.method}, {counted(about.epoch, 'epoch')}"
        for one, about in ((one, one.encoder.metadata) for one in compared)
    }
    return encoders | {
        "protocol": str(used) + " (altered)" * (used != published),
        "database": f"{counted(len(data.images), 'image')} and {counted(len(data.distractors), 'distractor')}",
        "features": f"L2-normalised, on {devices.describe(features.device)}"
        + ", kept in fp16" * (features.cache_dtype == "fp16"),
        "search": _backend(results),
    }


def _backend(results: Mapping[str, RetrievalResult]) -> str:
    """What searched; several where one had to take over."""
    return "; ".join(dict.fromkeys(result.backend for result in results.values()))


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
