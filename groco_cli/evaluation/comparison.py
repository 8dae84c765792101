"""Checkpoints that are compared: read before the long work begins, told apart by name, described for --json."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groco_cli import console
from groco_cli.data.sources import Dataset
from groco_cli.errors import UsageError
from groco_cli.evaluation.paper import PaperRow, imagenet_rows, is_imagenet, row_of_recipe
from groco_cli.evaluation.protocol import pixels, read_encoder, untrained
from groco_cli.models import Encoder
from groco_cli.wording import counted

_SAME_IN_ALL_RUNS = ("checkpoints", "latest")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A checkpoint among those compared.

    Args:
        name: What tells it from the others.
        path: Its file.
        encoder: What is in it.
    """

    name: str
    path: Path
    encoder: Encoder

    def record(self) -> dict[str, Any]:
        """What it is, for --json."""
        about = self.encoder.metadata
        return {"checkpoint": str(self.path), "arch": about.arch, "method": about.method, "epoch": about.epoch}


def named_checkpoints(paths: Sequence[Path]) -> dict[str, Path]:
    """Checkpoints by as many last parts of their paths as tell them apart; a run's newest one by the run.

    >>> list(named_checkpoints([Path("runs/a/checkpoints/latest.safetensors"), Path("resnet50.pth")]))
    ['a', 'resnet50']

    Args:
        paths: At least one; what is given twice is taken once.
    """
    paths = list(dict.fromkeys(paths))
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = {"/".join(_telling_parts(path)[-depth:]): path for path in paths}
        if len(names) == len(paths):
            return names
    return {str(path): path for path in paths}


def _telling_parts(path: Path) -> tuple[str, ...]:
    parts = path.with_suffix("").parts if path.name else path.parts  # "." and "/" have no name
    return tuple(part for part in parts if part not in _SAME_IN_ALL_RUNS) or parts


def read_compared(paths: Mapping[str, Path]) -> list[Compared]:
    """Read all checkpoints, and say on stderr what each is: that one is bad should not be found out hours later.

    Args:
        paths: By what each is called.

    Raises:
        UsageError: If there is no such file.
        GrocoError: If one holds no whole encoder.
    """
    compared = [Compared(name=name, path=path, encoder=read_encoder(path)) for name, path in paths.items()]
    for one in compared:
        about = one.encoder.metadata
        console.note(f"checkpoint {one.path}: {about.arch}, {about.method}, {counted(about.epoch, 'epoch')}")
    return compared


def trained_on(compared: Sequence[Compared]) -> str:
    """The data that all were trained on.

    Raises:
        UsageError: If one does not say, or they were trained on different data.
    """
    first = compared[0]
    for one in compared:
        data = one.encoder.metadata.data
        if not data:
            raise UsageError(f"{one.path} does not say what it was trained on", "give --data")
        if data != first.encoder.metadata.data:
            raise UsageError(
                f"{first.path} was trained on {first.encoder.metadata.data}, {one.path} on {data}",
                "give --data, to compare them on the same",
            )
    return first.encoder.metadata.data


def chosen_data(given: str | None, compared: Sequence[Compared]) -> str:
    """What to measure on: what was given, else what all were trained on; says where the environment overrides that.

    Args:
        given: What `--data` says, or GROCO_DATA.
        compared: At least one.

    Raises:
        UsageError: If nothing was given, and one does not say, or they were trained on different data.
    """
    if not given:
        return trained_on(compared)
    others = {one.encoder.metadata.data for one in compared} - {given, ""}
    if others and given == os.environ.get("GROCO_DATA"):
        console.warn(f"data {given} from GROCO_DATA in the environment; trained on {', '.join(sorted(others))}")
    return given


def baselines(compared: Sequence[Compared]) -> dict[str, Encoder]:
    """What training has to beat: each architecture with random weights, and the pixels as each encoder sees them.

    Returns:
        By what each is called: "untrained", or "untrained, as for a" where they differ; the same of "pixels" and
        "pixels, 32×32".
    """
    random: dict[tuple[Any, ...], Compared] = {}
    plain: dict[tuple[Any, ...], Compared] = {}
    for one in compared:
        about = one.encoder.metadata
        sight = about.image_size, about.resize, about.mean, about.std
        plain.setdefault(sight, one)
        random.setdefault((about.arch, about.stem, about.attention_heads, *sight), one)
    made = [
        (make(one.encoder.metadata), f", as for {one.name}" * (len(kinds) > 1))
        for kinds, make in ((random, untrained), (plain, pixels))
        for one in kinds.values()
    ]
    return {
        (encoder.metadata.arch if encoder.metadata.method == "pixels" else "untrained") + whose: encoder
        for encoder, whose in made
    }


def paper_rows(compared: Sequence[Compared], dataset: Dataset, measure: str) -> list[PaperRow]:
    """The paper's rows for what is compared; none, and a warning on stderr, where the data are not ImageNet.

    Args:
        compared: At least one.
        dataset: What they are measured on.
        measure: What the warning calls it: "k-NN".
    """
    if is_imagenet(dataset):
        return imagenet_rows([one.encoder.metadata for one in compared])
    console.warn(f"--paper: the paper's {measure} is on ImageNet (1,000 classes); it has no row for {dataset.name}")
    return []


def with_record_of_one(facts: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a comparison for --json: under "encoders", and where there is but one, at the top as well.

    Args:
        facts: What all have in common.
        encoders: What each is, and its scores.
    """
    (first, *others) = encoders
    return {**({} if others else first), **facts, "encoders": list(encoders)}


def recipe_notes(compared: Sequence[Compared]) -> list[str]:
    """A line for each encoder whose recipe is one of the paper's rows."""
    rows = {one.name: row_of_recipe(one.encoder.metadata) for one in compared}
    return [f"{name} began from recipe {row.recipe}: {row.title}" for name, row in rows.items() if row]
