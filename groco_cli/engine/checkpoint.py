"""What an exact resume needs, in one file that is whole or not there; read without unpickling anything else."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from groco_cli.errors import GrocoError
from groco_cli.files import atomic_write


@dataclass
class TrainingState:
    """All that changes while training.

    The order of the images and the views drawn of them follow from the seed and the step, so that the step is the
    sampler's position too.

    Args:
        model: Everything with weights.
        optimizer: With its momentum.
        scaler: Of fp16; disabled otherwise.
        step: Steps done.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    step: int = 0

    def save(self, path: Path) -> None:
        """Write everything, random states too."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        # Through a file of Python's: given a path, torch turns a full disk into a RuntimeError.
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Take everything back.

        Raises:
            GrocoError: If the file is damaged, or of a run with other settings.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["random"])
            if torch.cuda.is_available() and len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
            self.step = state["step"]
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
            raise GrocoError(
                f"--resume: {path} is damaged or belongs to another run ({str(error).splitlines()[0]})",
                "start anew with another --output",
            ) from error
