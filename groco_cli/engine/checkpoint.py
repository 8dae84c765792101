"""What an exact resume needs, in one file that is whole or not there; read without unpickling anything else."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from groco_cli import devices
from groco_cli.errors import GrocoError, UsageError, first_line
from groco_cli.files import atomic_write, cannot_read

_NEEDED = frozenset({"settings", "data", "step", "overflows", "model", "optimizer", "scaler"})
_OTHER_IMAGES = (
    "put the images back as they were, type --data and where they lie now, or begin a new run with another --output"
)


class DamagedStateError(GrocoError):
    """A file is no whole state, and never will be; an older one may be whole."""


@dataclass
class TrainingState:
    """All that changes while training.

    The order of the images, the views drawn of them and every random number in the networks follow from the seed and
    the step (`step.TrainingStep`), so that the step is the sampler's position, and the random state of each process.

    Args:
        model: Everything with weights.
        optimizer: With its momentum.
        scaler: Of fp16; disabled otherwise.
        settings: What a run that goes on from here must have in common; see `configuration.binding`.
        step: Steps done.
        overflows: Steps of fp16 that changed nothing, as their gradients were too large for it; counted on the device.
        data: Counts that settle which images come when, by what they count; as binding as the settings.
        images: A hash of the images' names (`Source.inventory`), as binding; "" where it is not known.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    overflows: int | Tensor = 0
    data: Mapping[str, int] = field(default_factory=dict)
    images: str = ""

    def save(self, path: Path) -> None:
        """Write everything."""
        state = {
            "settings": dict(self.settings),
            "data": dict(self.data),
            "images": self.images,
            "step": self.step,
            "overflows": int(self.overflows),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
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

    def load(self, path: Path) -> str:
        """Take everything back.

        Returns:
            A hash of the file, to compare what several processes read.

        Raises:
            DamagedStateError: If the file is not what was written.
            UsageError: If it is of a run with other settings, or on other images.
            GrocoError: If the file cannot be read, memory runs out, or it is whole but does not fit this version's
                model or optimiser.
        """
        stored, digest = _read(path)
        self._check_same_run(path, stored)
        try:
            self.model.load_state_dict(stored["model"])
            for group, own in zip(stored["optimizer"]["param_groups"], self.optimizer.param_groups, strict=False):
                if "fused" in own:  # by which kernels it steps is for this device and version to say
                    group["fused"] = own["fused"]
            self.optimizer.load_state_dict(stored["optimizer"])
            self.scaler.load_state_dict(stored["scaler"])
            self.step, self.overflows = stored["step"], stored["overflows"]
        except (RuntimeError, KeyError, ValueError) as error:
            raise GrocoError(
                f"--resume: {path} does not fit this run ({first_line(error)})",
                "resume it with the version of groco that wrote it, or begin a new run with another --output",
            ) from error
        return digest

    def is_finite(self) -> bool:
        """Whether every weight and the optimiser's memory are numbers; waits for the device."""
        kept = [*self.model.state_dict().values(), *_tensors(self.optimizer.state)]
        finite = [tensor.isfinite().all() for tensor in kept if tensor.is_floating_point()]
        return bool(torch.stack([each.to(finite[0].device) for each in finite]).all())

    def _check_same_run(self, path: Path, stored: Mapping[str, Any]) -> None:
        for name, before in stored["settings"].items():
            now = self.settings.get(name, before)
            if now != before:
                raise UsageError(
                    f"--resume: {path} is of a run with {name} = {before}, not {now}",
                    "put settings.toml back as it was, or begin a new run with another --output",
                )
        for what, count in stored["data"].items():
            there = self.data.get(what, count)
            if there != count:
                raise UsageError(
                    f"--resume: {path} is of a run on {count:,} {what}, and now there are {there:,}", _OTHER_IMAGES
                )
        if self.images and stored.get("images", "") not in ("", self.images):
            raise UsageError(f"--resume: {path} is of a run on images of other names", _OTHER_IMAGES)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """What is stored, and a hash of the file.

    The file is read at once, so that what a disk or the memory fails at is never taken for damage.
    """
    try:
        content = path.read_bytes()
        return _unpacked(content), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error
    except Exception as error:  # what a damaged file raises is anybody's guess
        if devices.out_of_memory(error):
            raise GrocoError(f"not enough memory to read {path}", "free some, then type the same again") from error
        raise DamagedStateError(f"{path} is damaged ({first_line(error)})") from error


def _unpacked(content: bytes) -> dict[str, Any]:
    # torch.load reads past flipped bits, though torch.save writes a checksum of every tensor.
    with ZipFile(BytesIO(content)) as file:
        broken = file.testzip()
    if broken:
        raise BadZipFile(f"{broken} has a wrong checksum")
    stored = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(stored, dict) or not stored.keys() >= _NEEDED:
        raise ValueError("it is something else than a state")
    return stored


def _tensors(state: Mapping[Any, Mapping[str, Any]]) -> list[Tensor]:
    return [value for memory in state.values() for value in memory.values() if isinstance(value, Tensor)]
