"""Results of linear probes side by side: the encoders at each learning rate, the paper's rows for ImageNet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from groco_cli import devices
from groco_cli.data.sources import Dataset
from groco_cli.evaluation.comparison import Compared, recipe_notes, with_record_of_one
from groco_cli.evaluation.linear import LinearScore
from groco_cli.evaluation.linear_protocol import ProbeSettings
from groco_cli.evaluation.paper import PaperRow
from groco_cli.models import EncoderMetadata
from groco_cli.tables import Cell, Column, Comparison, Figure, Report, percent, printed
from groco_cli.wording import counted

_COLUMNS = (
    Column("encoder", "encoder"),
    Column("learning rate", "learning_rate"),
    Column("train loss", "train_loss"),
    Column("top-1 %", "top1", best=1),
    Column("top-5 %", "top5", best=1),
    Column("correct", "correct"),
    Column("images", "images"),
)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A probe that is trained.

    Args:
        scores: One for each learning rate.
        folder: Where it is.
        heads: The files of the trained heads, in the same order.
    """

    scores: Sequence[LinearScore]
    folder: Path
    heads: Sequence[Path]


def linear_report(
    compared: Sequence[Compared],
    probed: Mapping[str, Probed],
    *,
    data: Dataset,
    settings: ProbeSettings,
    device: torch.device,
    baselines: Mapping[str, Sequence[LinearScore]],
    paper: Sequence[PaperRow] | None,
) -> Report:
    """All that `groco linprobe` says of the encoders it compared.

    Args:
        compared: The encoders.
        probed: The probe of each, by name.
        data: What they were trained and scored on, with a held-out part.
        settings: The protocol's.
        device: Where they were trained.
        baselines: The scores of what was probed beside them, by label.
        paper: The paper's rows; None where they were not asked for.
    """
    assert data.test is not None
    encoders = [
        one.record()
        | {"output": str(probe.folder)}
        | probe_record(settings, one.encoder.metadata, probe.scores, probe.heads)
        for one, probe in ((one, probed[one.name]) for one in compared)
    ]
    facts = {
        "data": data.name,
        "settings": asdict(settings),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "device": devices.describe(device),
    }
    record = with_record_of_one(facts, encoders)
    notes = [f"after epoch {settings.epochs}, on {facts['device']}", *map(probe_note, probed, encoders)]
    if baselines:
        record["baselines"] = {label: [asdict(score) for score in scores] for label, scores in baselines.items()}
        notes.append(f"{', '.join(baselines)}: probed alike, heads not kept")
    if paper is not None:
        record["paper"] = [row.record() for row in paper]
    if paper:
        notes += [*paper_notes(), *recipe_notes(compared)]
    rows = [*baselines.items(), *((name, probe.scores) for name, probe in probed.items())]
    return Report(
        record=record,
        title=f"Linear probe on {data.name}: {counted(len(data.test), 'image')}",
        table=linear_table(rows, paper or ()),
        notes=notes,
    )


def linear_table(results: Sequence[tuple[str, Sequence[LinearScore]]], paper: Sequence[PaperRow] = ()) -> Comparison:
    """All probes in one group.

    Args:
        results: A score for each learning rate, by what the encoder is called.
        paper: Rows to put below, those that print a linear probe.
    """
    measured: list[list[Cell]] = [
        [name, *_rate_and_loss(score), percent(score.top1), percent(score.top5), score.correct, score.total]
        for name, scores in results
        for score in scores
    ]
    return Comparison(columns=_COLUMNS, groups=[measured + [_printed(row) for row in paper if row.linear]])


def probe_record(
    settings: ProbeSettings, about: EncoderMetadata, scores: Sequence[LinearScore], heads: Sequence[Path]
) -> dict[str, Any]:
    """What a probe was and gave, for --json; which learning rate was best is said to be chosen on the test set.

    Args:
        settings: The protocol's.
        about: The encoder.
        scores: One for each learning rate.
        heads: The files of the trained heads, in the same order.
    """
    record: dict[str, Any] = {
        "protocol": settings.protocol(about),
        "published": not settings.altered(about),
        "scores": [asdict(score) | {"head": str(head)} for score, head in zip(scores, heads, strict=True)],
    }
    if len(scores) > 1:
        record["best_on_test_set"] = asdict(max(scores, key=lambda score: score.top1))
    return record


def probe_note(name: str, record: Mapping[str, Any]) -> str:
    """What has to be known to read a probe's rows.

    Args:
        name: What the encoder is called.
        record: Its `probe_record`, with its folder as "output".
    """
    line = f"{name}: {record['protocol']}; heads in {record['output']}"
    best = record.get("best_on_test_set")
    if best is None:
        return line
    chosen = f"{best['learning_rate']:g}, {100 * best['top1']:.2f} %"
    return f"{line}\n{name}: best learning rate, chosen on the test set: {chosen}"


def paper_notes() -> list[str]:
    """What has to be known to compare with the paper's rows, a line each."""
    return [
        "paper: Tables 1 and 4 to 7, ImageNet, SimSiam's protocol; backbone ResNet-50 unless named; † as reproduced by "
        "SimSiam's authors, ‡ by GroCo's"
    ]


def _rate_and_loss(score: LinearScore) -> tuple[Figure, Figure]:
    return (
        Figure(score.learning_rate, f"{score.learning_rate:g}"),
        Figure(score.train_loss, f"{score.train_loss:.4f}"),
    )


def _printed(row: PaperRow) -> list[Cell]:
    top1, *top5 = map(printed, row.linear)
    return [row.title, None, None, top1, top5[0] if top5 else None, None, None]
