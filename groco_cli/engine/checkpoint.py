"""What an exact resume needs, in one file that is whole or not there; read without unpickling anything else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from groco_cli.errors import GrocoError, UsageError, first_line
from groco_cli.files import atomic_write


class DamagedStateError(GrocoError):
    """A state cannot be read; an older one may be whole."""


@dataclass
class TrainingState:
    """All that changes while training.

    The order of the images and the views drawn of them follow from the seed and the step, so that the step is the
    sampler's position too.

    Args:
        model: Everything with weights.
        optimizer: With its momentum.
        scaler: Of fp16; disabled otherwise.
        settings: What a run that goes on from here must have in common; see `configuration.binding`.
        step: Steps done.
        overflows: Steps of fp16 that changed nothing, as their gradients were too large for it; counted on the device.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    overflows: int | Tensor = 0

    def save(self, path: Path) -> None:
        """Write everything, random states too."""
        state = {
            "settings": dict(self.settings),
            "step": self.step,
            "overflows": int(self.overflows),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        # Through a file of Python's: given a path, torch turns a full disk into a RuntimeError.
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                # Where a write fails, torch tries to end its archive all the same, and complains of that instead.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

    def load(self, path: Path) -> None:
        """Take everything back.

        Raises:
            DamagedStateError: If the file cannot be read, or is not what was written.
            UsageError: If it is of a run with other settings.
            GrocoError: If it is whole, but does not fit this version's model or optimiser.
        """
        stored = _read(path)
        for name, before in stored.get("settings", {}).items():  # none in the first runs
            now = self.settings.get(name, before)
            if now != before:
                raise UsageError(
                    f"--resume: {path} is of a run with {name} = {before}, not {now}",
                    "put settings.toml back as it was, or begin a new run with another --output",
                )
        try:
            self.model.load_state_dict(stored["model"])
            for group, own in zip(stored["optimizer"]["param_groups"], self.optimizer.param_groups, strict=False):
                if "fused" in own:  # by which kernels it steps is for this device and version to say
                    group["fused"] = own["fused"]
            self.optimizer.load_state_dict(stored["optimizer"])
            self.scaler.load_state_dict(stored["scaler"])
            torch.set_rng_state(stored["random"])
            if torch.cuda.is_available() and len(stored["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(stored["random_cuda"])
            self.step, self.overflows = stored["step"], stored.get("overflows", 0)
        except (RuntimeError, KeyError, ValueError) as error:
            raise GrocoError(
                f"--resume: {path} does not fit this run ({first_line(error)})",
                "resume it with the version of groco that wrote it, or begin a new run with another --output",
            ) from error

    def is_finite(self) -> bool:
        """Whether every weight and the optimiser's memory are numbers; waits for the device."""
        kept = [*self.model.state_dict().values(), *_tensors(self.optimizer.state)]
        finite = [tensor.isfinite().all() for tensor in kept if tensor.is_floating_point()]
        return bool(torch.stack([each.to(finite[0].device) for each in finite]).all())


def _read(path: Path) -> dict[str, Any]:
    # torch.load reads past flipped bits, though torch.save writes a checksum of every tensor.
    try:
        with ZipFile(path) as file:
            broken = file.testzip()
        if broken:
            raise BadZipFile(f"{broken} has a wrong checksum")
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return stored
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise DamagedStateError(f"{path} is damaged ({first_line(error)})") from error


def _tensors(state: Mapping[Any, Mapping[str, Any]]) -> list[Tensor]:
    return [value for memory in state.values() for value in memory.values() if isinstance(value, Tensor)]
