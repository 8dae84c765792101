"""How much of a disk a run fills, before it does: states that are kept, and checkpoints."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.methods import Method
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """What a run will write, to the size of its tensors.

    Args:
        checkpoint_bytes: A checkpoint: encoder and heads.
        state_bytes: A state to go on from: networks and optimiser.
        checkpoints: How many there are at a time at most: those kept for good, the latest, and one being written.
        states: Likewise: `--keep`, and one being written.
        there_bytes: What of them the run's folder holds already.
        free_bytes: What is free where the folder is, or will be.
    """

    checkpoint_bytes: int
    state_bytes: int
    checkpoints: int
    states: int
    there_bytes: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """What has to be free."""
        whole = self.checkpoints * self.checkpoint_bytes + self.states * self.state_bytes
        return max(0, whole - self.there_bytes)


def disk_space(settings: PretrainSettings, model: Method, state: TrainingState, folder: RunFolder) -> DiskSpace:
    """Find out what a run needs and has.

    Args:
        settings: The run's.
        model: Whose encoder becomes a checkpoint.
        state: With the optimiser, after a step: before, it has no memory.
        folder: Where the run is, or would be; nothing is made.

    Raises:
        GrocoError: If the place cannot be written to, or has not enough room.
    """
    optim, run = settings.optim, settings.run
    milestones = optim.epochs // run.milestones if run.milestones else 0
    ends_on_one = run.milestones and optim.epochs % run.milestones == 0
    place = _existing(folder.path)
    space = DiskSpace(
        checkpoint_bytes=_bytes([model.encoder.state_dict(), *(head.state_dict() for head in model.heads().values())]),
        state_bytes=_bytes([state.model.state_dict(), *state.optimizer.state.values()]),
        checkpoints=milestones + (not ends_on_one) + 2,
        states=run.keep + 1,
        there_bytes=sum(path.stat().st_size for path in folder.saved),
        free_bytes=shutil.disk_usage(place).free,
    )
    if space.needed_bytes > space.free_bytes:
        needed, free = gigabytes(space.needed_bytes), gigabytes(space.free_bytes)
        raise GrocoError(
            f"{folder.path} will need {needed}, and {free} are free there",
            "make room, type --output for another place, or keep less: --keep 1 --milestones 0",
        )
    return space


def gigabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e7 else f"{count / 1e6:,.2f} MB"


def _existing(path: Path) -> Path:
    """The folder that is there already, of a path, and may be written to."""
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise GrocoError(f"cannot write {path}: no folder can be made in {place}", "choose another place with --output")
    return place


def _bytes(parts: list[Mapping[str, Any]]) -> int:
    return sum(tensor.nbytes for part in parts for tensor in _tensors(part))


def _tensors(part: Mapping[str, Any]) -> Iterator[Tensor]:
    return (value for value in part.values() if isinstance(value, Tensor))
