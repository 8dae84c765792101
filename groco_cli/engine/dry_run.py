"""`groco pretrain --dry-run`: everything that a run needs is opened, built and tried, and nothing is trained or kept.

Two steps are taken on real views. The first fills what is filled once (the optimiser's memory, a GPU's libraries),
the second is timed. In several processes all take them, so that what they exchange is tried and counted too.
"""

import math
import resource
import sys
import time
from dataclasses import dataclass
from itertools import chain

import torch

from groco_cli import devices
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sources import Dataset
from groco_cli.engine.disk_space import DiskSpace, disk_space, gigabytes
from groco_cli.engine.feeding import check_batch, decoders, open_training_set, view_loader
from groco_cli.engine.memory import memory_explained
from groco_cli.engine.objective import build_loss
from groco_cli.engine.processes import Processes, joined
from groco_cli.engine.recipes import better_recipe
from groco_cli.engine.run_folder import RunFolder, planned_run_folder
from groco_cli.engine.saving import Saver
from groco_cli.engine.schedule import learning_rate
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.sinks import check_installed
from groco_cli.engine.step import TrainingStep, build_step
from groco_cli.errors import GrocoError
from groco_cli.wording import counted


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would be.

    Args:
        settings: The run's.
        folder: Where it would go.
        data: The data set's name.
        images: Images that are learnt from.
        classes: Their classes; 0 without labels.
        processes: How many train.
        workers: Processes that decode, for each of them.
        where: The device and the precision, for people.
        loss: For people.
        parameters: Weights that are trained.
        per_epoch: Steps an epoch.
        begun: Steps done before (a resumed run).
        peak_bytes: Most memory in use at a time; of a GPU's own, or all that the process had on a CPU.
        total_bytes: The GPU's memory; None on a CPU.
        step_seconds: Of the second step; with its views, where no other process prepares them.
        disk: What is written.
    """

    settings: PretrainSettings
    folder: RunFolder
    data: str
    images: int
    classes: int
    processes: int
    workers: int
    where: str
    loss: str
    parameters: int
    per_epoch: int
    begun: int
    peak_bytes: int
    total_bytes: int | None
    step_seconds: float
    disk: DiskSpace

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.per_epoch * self.settings.optim.epochs

    def facts(self) -> dict[str, object]:
        """For machines."""
        optim, views = self.settings.optim, self.settings.views
        return {
            "run": str(self.folder.path),
            "data": self.data,
            "images": self.images,
            "classes": self.classes,
            "views": views.views,
            "local_views": views.local_views,
            "batch_size": optim.batch_size,
            "processes": self.processes,
            "batch_size_per_process": optim.batch_size // self.processes,
            "workers_per_process": self.workers,
            "device": self.where,
            "loss": self.loss,
            "parameters": self.parameters,
            "steps_per_epoch": self.per_epoch,
            "steps": self.steps,
            "steps_done": self.begun,
            "warmup_steps": optim.warmup_epochs * self.per_epoch,
            "peak_learning_rate": optim.peak_learning_rate,
            "peak_memory_bytes": self.peak_bytes,
            "gpu_memory_bytes": self.total_bytes,
            "checkpoint_bytes": self.disk.checkpoint_bytes,
            "state_bytes": self.disk.state_bytes,
            "disk_needed_bytes": self.disk.needed_bytes,
            "disk_free_bytes": self.disk.free_bytes,
            "step_seconds": self.step_seconds,
            "epoch_seconds_estimate": self.step_seconds * self.per_epoch,
        }

    def rows(self) -> list[list[str]]:
        """For people: names and values."""
        optim, views, disk = self.settings.optim, self.settings.views, self.disk
        each = f", {optim.batch_size // self.processes} for each of {self.processes} processes" * (self.processes > 1)
        rule = f"{optim.learning_rate:g} × " + ("batch/256" if optim.lr_scaling == "linear" else "√(batch/256)")
        if self.total_bytes is None:
            memory = f"{gigabytes(self.peak_bytes)} at most, all that the process had at a time"
        else:
            memory = f"{gigabytes(self.peak_bytes)} of the GPU's {gigabytes(self.total_bytes)} at most"
        done = f", {self.begun:,} done" if self.begun else ""
        better = better_recipe(self.settings.recipe, self.images)
        alone = "" if self.workers == 0 else ", if the views are ready in time"
        classes = counted(self.classes, "class", "classes") if self.classes else "no classes"
        return [
            ["recipe", self.settings.recipe + (f"; for so few images type --recipe {better}" if better else "")],
            ["data", f"{self.data}: {counted(self.images, 'image')}, {classes}"],
            ["views", f"{views}, {views.augmentation} augmentations"],
            ["batch", f"{optim.batch_size}{each}"],
            ["encoder", f"{self.settings.model.arch}; {self.parameters:,} weights are trained, heads included"],
            ["loss", self.loss],
            ["steps", f"{self.per_epoch:,} per epoch, {self.steps:,} in all{done}"],
            ["warm-up", counted(optim.warmup_epochs * self.per_epoch, "step")],
            ["optimizer", f"{optim.optimizer}, learning rate {optim.peak_learning_rate:g} = {rule}"],
            ["device", self.where],
            ["memory", memory],
            ["time", f"{_duration(self.step_seconds * self.per_epoch)} per epoch: an estimate from one step{alone}"],
            ["run", str(self.folder.path)],
            [
                "disk",
                f"{gigabytes(disk.needed_bytes)} of {gigabytes(disk.free_bytes)} free: "
                f"{counted(disk.states, 'state')} of {gigabytes(disk.state_bytes)}, "
                f"{counted(disk.checkpoints, 'checkpoint')} of {gigabytes(disk.checkpoint_bytes)}",
            ],
        ]


def dry_run(settings: PretrainSettings, *, resume: RunFolder | None = None) -> DryRun:
    """Try everything, together with the processes that were started with this one, if any; leaves no file behind.

    Args:
        settings: Everything that the run depends on.
        resume: The run to go on with; None for a new one.

    Raises:
        UsageError: If a setting does not fit the data or the machine.
        GrocoError: If the data cannot be read, memory or disk are too small, the run cannot be resumed, or the loss is
            not finite.
    """
    check_installed(settings.run.log_to)
    folder = resume or planned_run_folder(settings.run.output, settings.recipe)
    with joined(settings.run) as processes:
        processes.check_resumed(resume)
        precision = devices.choose_precision(settings.run.precision, processes.device)
        dataset = open_training_set(settings.data)
        loss = build_loss(settings.loss, settings.method.method)
        check_batch(settings, dataset.name, len(dataset.train), loss)
        step = build_step(settings, loss, processes, precision)
        seconds, begun, per_epoch = _tried(settings, dataset, processes, step, resume)
        total = torch.cuda.mem_get_info(processes.device)[1] if processes.device.type == "cuda" else None
        return DryRun(
            settings=settings,
            folder=folder,
            data=dataset.name,
            images=len(dataset.train),
            classes=len(dataset.train.classes),
            processes=processes.world,
            workers=decoders(settings.data, processes),
            where=f"{devices.describe(processes.device)}, {precision}",
            loss=str(loss),
            parameters=sum(weight.numel() for weight in step.model.parameters() if weight.requires_grad),
            per_epoch=per_epoch,
            begun=begun,
            peak_bytes=processes.agreed(_peak_bytes(processes.device)),
            total_bytes=total,
            step_seconds=seconds,
            disk=disk_space(settings, step.model, step.state, folder),
        )


def _tried(
    settings: PretrainSettings, dataset: Dataset, processes: Processes, step: TrainingStep, resume: RunFolder | None
) -> tuple[float, int, int]:
    """Take two steps: the seconds of the second, the step that was begun from, and steps per epoch."""
    loader = view_loader(settings, dataset.train, processes)
    if resume:
        Saver(settings, resume, step.model, step.state, loader, processes).take_up()
    begun, per_epoch = step.state.step, len(loader)
    total = per_epoch * settings.optim.epochs
    rate = learning_rate(
        begun,
        peak=settings.optim.peak_learning_rate,
        warmup_steps=settings.optim.warmup_epochs * per_epoch,
        total_steps=total,
    )
    step.model.train()
    feed = chain(loader.epoch(0), loader.epoch(1))
    others_prepare = decoders(settings.data, processes) > 0
    with dead_workers_explained(), memory_explained(settings, processes), devices.convolutions_tuned(processes.device):
        step(next(feed), progress=begun / total, rate=rate)
        views = next(feed) if others_prepare else None
        started = _now(processes.device)
        loss, _ = step(views or next(feed), progress=begun / total, rate=rate)
        seconds = _now(processes.device) - started
    if not math.isfinite(loss.item()):
        raise GrocoError(
            f"the loss of the first steps is {loss.item()}", "type --precision fp32, or look at the images"
        )
    return seconds, begun, per_epoch


def _peak_bytes(device: torch.device) -> int:
    of_gpu = devices.peak_memory(device)
    if of_gpu is not None:
        return of_gpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB on Linux


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
