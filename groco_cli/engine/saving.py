"""Saving a run, and going on with it: never a state that is not whole, and no good one given up for a bad one.

Checkpoints are written first and the state last, so that wherever a state is, all that belongs to its step is too. A
state is found by the step in its name, and an older one is deleted only once a newer is safely on disk: there is no
list or pointer that could lie after a crash. Saving changes nothing in the training, however often it happens.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from groco_cli import console
from groco_cli.data.loader import ViewLoader
from groco_cli.engine.checkpoint import DamagedStateError, TrainingState
from groco_cli.engine.divergence import likely_cause
from groco_cli.engine.every import Every
from groco_cli.engine.methods import Method
from groco_cli.engine.processes import Processes
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError
from groco_cli.files import atomic_write, cannot_write, remove_leftovers
from groco_cli.models.conversion import save_checkpoint


class Saver:
    """Keeps a run's states and checkpoints.

    Args:
        settings: The run's.
        folder: Where to.
        model: Whose encoder becomes a checkpoint.
        state: What is saved; `model` is part of it.
        loader: What is learnt from; a run that goes on must have as much of it.
        processes: This process, and those that it trains with. All take up a state together; the first alone saves.

    Attributes:
        kept: Step of the newest state that is whole; None where nothing was saved yet.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        folder: RunFolder,
        model: Method,
        state: TrainingState,
        loader: ViewLoader,
        processes: Processes,
    ) -> None:
        self._settings, self._per_epoch = settings, len(loader)
        self._run, self._epochs = settings.run, settings.optim.epochs
        self._folder, self._model, self._state, self._processes = folder, model, state, processes
        state.data = {"training images": len(loader.source), "steps per epoch": len(loader)}
        state.images = loader.source.inventory()
        self._every = Every.parse_several(settings.run.save_every, "--save-every")
        self._saved_at = time.monotonic()
        self._skipped: set[Path] = set()
        self.kept: int | None = None

    def resume(self) -> None:
        """Clear away what a killed process left behind, and take up the newest state; see `take_up`."""
        if self._processes.is_first:  # by the time another one came here, it might be what this one is writing
            for folder in self._folder.folders:
                remove_leftovers(folder)
        self.take_up()

    def take_up(self) -> None:
        """Take up the newest state that is whole; nothing where the run was stopped before its first.

        The first process looks for it. The others, who on another machine may for a while see other files than it does,
        load the one that it names, and none goes on unless all have read the same.

        Raises:
            GrocoError: If there are states or checkpoints, but no state is whole, it is not of this run, or a process
                cannot read it.
        """
        told = self._processes.from_first("state", self._take_newest)
        if not told:
            return
        digest, name = told.split(" ", 1)
        same = self._processes.is_first or self._is_whole(Path(name), digest)
        if self._processes.agreed(0 if same else 1):
            raise GrocoError(
                f"--resume: not every process read {name} as the first one did",
                "wait until all machines see the same files, then type the same again",
            )
        self.kept = self._state.step

    def due(self) -> bool:
        """Whether it is time to save."""
        since = time.monotonic() - self._saved_at
        return self._lasts() or any(every.due(self._state.step, self._per_epoch, since) for every in self._every)

    def save(self) -> None:
        """Write latest.safetensors, the epoch's own file if it is to last, and the state.

        Raises:
            GrocoError: If the weights are not finite, or a file cannot be written; what was saved before stays.
        """
        if not self._state.is_finite():
            raise self._diverged("the weights are not finite after", self._state.step)
        try:
            if self._state.step:
                self._export(self._folder.latest)
            if self._lasts():
                self._export(self._folder.checkpoint(self._state.step // self._per_epoch - 1))
            self._state.save(self._folder.state(self._state.step))
            self.kept, self._saved_at = self._state.step, time.monotonic()
            self._delete_older()
        except GrocoError as error:
            kept = "nothing was saved before" if self.kept is None else f"saved is step {self.kept}"
            raise GrocoError(
                f"{error.message}; {kept}",
                f"make room there, then go on with: {self._folder.resume_command}",
            ) from error

    def check_losses(self, losses: Sequence[Tensor]) -> None:
        """Stop a run that has diverged; waits for the device.

        Args:
            losses: Of the last steps up to now, each a scalar.

        Raises:
            GrocoError: If one is not finite, naming the first such step.
        """
        found = torch.stack(list(losses)).tolist() if losses else []
        for step, loss in enumerate(found, self._state.step - len(found) + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} in", step)

    def _take_newest(self) -> str:
        """Load the newest state that is whole; its hash and path, "" where the run was stopped before its first."""
        states = self._folder.states
        for path in states:
            try:
                return f"{self._state.load(path)} {path}"
            except DamagedStateError as error:
                console.warn(f"skipped {error.message}")
                self._skipped.add(path)
        if states or self._folder.latest.exists():
            reason = "none of its states is whole" if states else "its state is gone"
            raise GrocoError(
                f"--resume: cannot go on with {self._folder.path}: {reason}",
                "begin a new run with another --output; the checkpoints of this one stay as they are",
            )
        return ""

    def _is_whole(self, path: Path, digest: str) -> bool:
        """Load a state; whether it is the one with this hash."""
        try:
            return self._state.load(path) == digest
        except DamagedStateError:
            return False

    def _lasts(self) -> bool:
        """Whether this is the end of an epoch whose checkpoint is never overwritten."""
        epoch, more = divmod(self._state.step, self._per_epoch)
        milestones = self._run.milestones
        return more == 0 and epoch > 0 and (epoch == self._epochs or (milestones > 0 and epoch % milestones == 0))

    def _export(self, path: Path) -> None:
        encoder = self._model.encoder
        encoder.metadata = replace(encoder.metadata, epoch=self._state.step // self._per_epoch)
        with atomic_write(path) as temporary:
            heads = {name: head.state_dict() for name, head in self._model.heads().items()}
            save_checkpoint(temporary, encoder, heads)

    def _delete_older(self) -> None:
        """Delete what is beyond `--keep`, and damaged states: they take no good one's place."""
        self._skipped.discard(self._folder.state(self._state.step))  # which has just been written anew
        good = [path for path in self._folder.states if path not in self._skipped]
        for path in (*self._skipped, *good[self._run.keep :]):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error
        self._skipped.clear()

    def _diverged(self, what: str, step: int) -> GrocoError:
        device = next(self._model.parameters()).device
        cause = likely_cause(self._settings, step, self._per_epoch, device)
        kept = f"{self._folder.latest} of step {self.kept}" if self.kept else "no checkpoint"
        return GrocoError(f"{what} step {step}; {cause.likely}; {kept} is from before", cause.remedy)
