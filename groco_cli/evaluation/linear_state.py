"""What a linear probe leaves behind: its heads, and what an exact resume needs; safetensors, whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from groco_cli import __version__
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError, UsageError, first_line
from groco_cli.evaluation.linear import LinearHeads, LinearScore
from groco_cli.evaluation.linear_protocol import LinearProbe, ProbeSettings
from groco_cli.files import atomic_write
from groco_cli.models import EncoderMetadata

_KEY = "linprobe"
STATE = "linprobe.safetensors"  # as `engine.run_folder` has it


@dataclass(frozen=True, kw_only=True)
class DataStamp:
    """What tells a data set from another of the same name, or from itself once it was changed.

    Args:
        classes: Their names, in the order of the labels.
        train: A hash of the training images and their labels.
        test: The same of those held out.
    """

    classes: tuple[str, ...]
    train: str
    test: str


@dataclass(frozen=True, kw_only=True)
class ProbeRun:
    """What a probe was asked for.

    Args:
        checkpoint: The encoder's file.
        encoder: Its `encoder_hash`.
        data: What `--data` said.
        stamp: What it named then.
        settings: The protocol's.
        processes: How many it was begun in.
    """

    checkpoint: str
    encoder: str
    data: str
    stamp: DataStamp
    settings: ProbeSettings
    processes: int = 1


def save_state(folder: Path, run: ProbeRun, probe: LinearProbe) -> None:
    """Write everything that changes while a probe is trained; the first process does."""
    stored = asdict(run) | {"history": [[asdict(score) for score in epoch] for epoch in probe.history]}
    if collectives.rank() == 0:
        _write(folder / STATE, {field.name: getattr(probe.heads, field.name) for field in fields(LinearHeads)}, stored)


def read_run(folder: Path) -> ProbeRun:
    """What the probe in a folder was asked for.

    Raises:
        UsageError: If there is none.
        GrocoError: If its state is damaged.
    """
    stored = _read(folder)[1]
    try:
        rates = tuple(stored["settings"]["learning_rates"])
        settings = ProbeSettings(**{**stored["settings"], "learning_rates": rates})
        stamp = DataStamp(**{**stored["stamp"], "classes": tuple(stored["stamp"]["classes"])})
        facts = {key: stored[key] for key in ("checkpoint", "encoder", "data")}
        return ProbeRun(**facts, stamp=stamp, settings=settings, processes=stored["processes"])
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def load_state(folder: Path, probe: LinearProbe) -> None:
    """Take everything back.

    Raises:
        UsageError: If there is no probe in the folder.
        GrocoError: If its state is damaged, or of other data.
    """
    tensors, stored = _read(folder)
    try:
        history = [[LinearScore(**score) for score in epoch] for epoch in stored["history"]]
        for field in fields(LinearHeads):
            own: Tensor = getattr(probe.heads, field.name)
            if own.shape != tensors[field.name].shape:
                raise ValueError(f"{field.name} of another shape")
            own.copy_(tensors[field.name])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, error) from error
    probe.history = history


def save_heads(
    folder: Path, run: ProbeRun, probe: LinearProbe, classes: tuple[str, ...], about: EncoderMetadata
) -> list[Path]:
    """Write each head to a file of its own: weight [C, D] and bias [C], as torch's Linear calls them.

    Returns:
        The files, in the order of the learning rates.
    """
    paths = []
    for number, score in enumerate(probe.history[-1]):
        paths.append(folder / f"head-lr{score.learning_rate:g}.safetensors")
        if collectives.rank() == 0:
            tensors = {"weight": probe.heads.weight[number], "bias": probe.heads.bias[number]}
            facts = {
                "checkpoint": run.checkpoint,
                "encoder": run.encoder,
                "arch": about.arch,
                "data": run.data,
                "classes": classes,
                "protocol": run.settings.protocol(about),
                "settings": asdict(run.settings),
                "score": asdict(score),
                "groco_version": __version__,
            }
            _write(paths[-1], tensors, facts)
    return paths


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {_KEY: json.dumps(facts)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / STATE
    if not path.is_file():
        raise UsageError(f"--output {folder} holds no linear probe to resume", "leave out --resume to begin one there")
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _damaged(folder, error) from error
    return tensors, stored


def _damaged(folder: Path, error: Exception) -> GrocoError:
    return GrocoError(
        f"--resume: {folder / STATE} is damaged or of other data ({first_line(error)})",
        "start anew with another --output",
    )
