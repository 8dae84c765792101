"""Pre-training, from settings to a run's folder; the loop reads top to bottom."""

from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from groco_cli import devices
from groco_cli.data.loader import ViewLoader
from groco_cli.data.pool import dead_workers_explained
from groco_cli.distributed.interrupt import Interrupted, StopRequest
from groco_cli.engine.announcement import announce
from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.compiling import compiler_explained, uncompiled
from groco_cli.engine.configuration import to_toml
from groco_cli.engine.curves import Curves
from groco_cli.engine.feeding import check_batch, open_training_set, scoring_decoders, view_loader
from groco_cli.engine.memory import memory_explained
from groco_cli.engine.methods import Compared
from groco_cli.engine.metrics import MetricsLog, NoLog, read_metrics
from groco_cli.engine.monitor import KNNMonitor, Stopped, knn_monitor
from groco_cli.engine.objective import build_loss
from groco_cli.engine.pace import Stopwatch
from groco_cli.engine.processes import Processes, joined
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder, new_run_folder
from groco_cli.engine.run_lock import held
from groco_cli.engine.saving import Saver
from groco_cli.engine.schedule import learning_rate
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.sinks import check_installed, open_sinks
from groco_cli.engine.step import TrainingStep, build_step
from groco_cli.errors import GrocoError
from groco_cli.files import atomic_write
from groco_cli.losses.statistics import similarity_statistics
from groco_cli.wording import counted

_DUE = 1  # what a process whose time to save has come answers; a signal's number is larger


def pretrain(settings: PretrainSettings, *, resume: RunFolder | None = None) -> Path:
    """Pre-train an encoder, together with the processes that were started with this one, if any (see `launch`).

    Args:
        settings: Everything that the run depends on.
        resume: The run to go on with, begun with the same settings; None for a new one.

    Returns:
        The run's folder: settings.toml, metrics.jsonl, checkpoints/, state/, plots/.

    Raises:
        UsageError: If a setting does not fit the data or the machine.
        GrocoError: If the data cannot be read, the folder cannot be written to, a step does not fit into memory, or the
            loss is no longer finite.
        Interrupted: If SIGINT or SIGTERM came; the run is saved and can be resumed.
    """
    check_installed(settings.run.log_to)
    with (
        joined(settings.run) as processes,
        memory_explained(settings, processes),
        devices.convolutions_tuned(processes.device),
    ):
        return _pretrain(settings, resume, processes)


def _pretrain(settings: PretrainSettings, resume: RunFolder | None, processes: Processes) -> Path:
    processes.check_resumed(resume)
    device = processes.device
    precision = devices.choose_precision(settings.run.precision, device)
    dataset = open_training_set(settings.data)
    settings = replace(settings, data=settings.data.located())  # what is written is to be read in any folder
    loss = build_loss(settings.loss, settings.method.method)
    check_batch(settings, dataset.name, len(dataset.train), loss)
    loader = view_loader(settings, dataset.train, processes)
    step = build_step(settings, loss, processes, precision)
    folder = resume or RunFolder(
        Path(processes.from_first("folder", lambda: str(new_run_folder(settings.run.output, settings.recipe).path)))
    )
    with held(folder) if processes.is_first else nullcontext():
        saver = Saver(settings, folder, step.model, step.state, loader, processes)
        if resume:
            saver.resume()
        if processes.is_first:
            with atomic_write(folder.settings) as temporary:
                temporary.write_text(to_toml(settings), encoding="utf-8")
        where = devices.describe(device) + (f", {processes.world} processes" if processes.world > 1 else "")
        announce(settings, dataset, len(loader), loss, folder, step.state.step, f"{where}, {precision}")
        monitor = knn_monitor(dataset, device, scoring_decoders(settings.data, processes), settings.data.on_bad_image)
        epochs = settings.optim.epochs
        with (
            dead_workers_explained(),
            compiler_explained(),
            closing(_metrics_log(settings, processes, folder, saver)) as metrics,
            StopRequest() as stop,
            Report(step.state.step, len(loader) * epochs, epochs) as report,
            processes.ending_together(),
        ):
            curves = Curves(folder.metrics, folder.curves, _title(settings))
            _Run(settings, folder, processes, loader, step, saver, monitor, metrics, stop, report, curves).train()
    return folder.path


def _metrics_log(
    settings: PretrainSettings, processes: Processes, folder: RunFolder, saver: Saver
) -> MetricsLog | NoLog:
    if not processes.is_first:
        return NoLog()
    return MetricsLog(folder.metrics, saver.kept, open_sinks(settings, folder.path, saver.kept or 0))


def _title(settings: PretrainSettings) -> str:
    return (
        f"{settings.recipe}: {settings.model.arch} on {settings.data.data}, {counted(settings.optim.epochs, 'epoch')}, "
        f"batch {settings.optim.batch_size}"
    )


@dataclass
class _Run:
    """Everything that the loop touches."""

    settings: PretrainSettings
    folder: RunFolder
    processes: Processes
    loader: ViewLoader
    step: TrainingStep
    saver: Saver
    monitor: KNNMonitor | None
    metrics: MetricsLog | NoLog
    stop: StopRequest
    report: Report
    curves: Curves
    unchecked: list[Tensor] = field(default_factory=list)  # losses that nobody has looked at yet, on their device

    @property
    def state(self) -> TrainingState:
        """All that changes while training."""
        return self.step.state

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return len(self.loader) * self.settings.optim.epochs

    def train(self) -> None:
        """The loop: from the state's step to the end, or until asked to stop."""
        if self.saver.kept is None:
            self._save()  # a disk that has no room for it is found out now, not in an hour
        self._score_what_is_missing()
        self.step.model.train()
        for epoch in range(self.state.step // len(self.loader), self.settings.optim.epochs):
            self._train_epoch(epoch)
            if self.processes.is_first:
                self.curves.redraw()
        self._draw()

    def _train_epoch(self, epoch: int) -> None:
        """What is left of an epoch, its score, and what is due to be saved within it and at its end."""
        state, run, per_epoch = self.state, self.settings.run, len(self.loader)
        stopwatch = Stopwatch(self.settings.optim.batch_size, self.processes.device)
        for views in stopwatch.waiting(self.loader.epoch(epoch, start=state.step % per_epoch)):
            loss, compared = self.step(views, progress=state.step / self.total, rate=self._rate())
            stopwatch.done(loss)
            self.unchecked.append(loss)
            self.report.step(state.step)
            if state.step % run.log_every == 0 or state.step % per_epoch == 0:
                self._log(loss, compared, stopwatch)
            if state.step % per_epoch:  # at the end of an epoch its figures are read first
                self._save_if_due()
        number, pace = epoch + 1, stopwatch.read()
        self._check_losses()
        self._save_if_due()
        self.report.epoch(number, pace, self._score(number))

    def _rate(self) -> float:
        optim = self.settings.optim
        return learning_rate(
            self.state.step,
            peak=optim.peak_learning_rate,
            warmup_steps=optim.warmup_epochs * len(self.loader),
            total_steps=self.total,
        )

    def _log(self, loss: Tensor, compared: Compared, stopwatch: Stopwatch) -> None:
        """Write a line about this step; the one place that waits for the device within an epoch."""
        positive, negative = map(
            self.processes.mean,
            similarity_statistics(compared.anchors, self.settings.views.views, compared.targets),
        )
        self._check_losses()
        pace = stopwatch.read()
        self.metrics.write(
            "train",
            self.state.step,
            {
                "epoch": self.state.step / len(self.loader),
                "loss": loss.item(),
                "learning_rate": self.state.optimizer.param_groups[0]["lr"],
                "positive_similarity": positive.item(),
                "negative_similarity": negative.item(),
                "images_per_second": pace.images_per_second,
                "waiting": pace.waiting,
                **({} if pace.gpu_memory is None else {"gpu_memory": pace.gpu_memory}),
                **({"overflows": int(self.state.overflows)} if self.state.scaler.is_enabled() else {}),
            },
        )
        self.report.pace(pace)

    def _score_what_is_missing(self) -> None:
        """The score of the untrained encoder, or of the epoch that the state is from, unless a run before had it."""
        epoch, more = divmod(self.state.step, len(self.loader))
        lines = read_metrics(self.folder.metrics) if self.processes.is_first else []
        there = any(line["kind"] == "knn" and line["step"] == self.state.step for line in lines)
        if more or self.processes.agreed(1 if there else 0):
            return
        shown = self._score(epoch)
        if shown:
            self.report.note(f"epoch {epoch}  {shown}" if epoch else f"untrained  {shown}")

    def _score(self, epoch: int) -> str:
        """The k-NN score of the curve where it is due and there are labels; the first process's work.

        What is due to be saved has been, so that nothing is lost while it takes its time.

        Raises:
            Interrupted: If a signal came meanwhile; whoever resumes the run will score it.
        """
        every = self.settings.run.knn_every
        if self.monitor is None or not (epoch in (0, self.settings.optim.epochs) or (every and epoch % every == 0)):
            return ""
        score, given_up = None, False
        if self.processes.is_first:
            try:
                with uncompiled() if self.settings.run.compile else nullcontext():
                    score = self.monitor.score(self.step.model.encoder, lambda: bool(self.stop.signal))
            except Stopped:
                given_up = True
        self.processes.wait()
        asked = self.processes.agreed(self.stop.signal if given_up else 0)
        if asked:
            self._stop(asked)
        if score is None:
            return "no k-NN score"
        self.metrics.write("knn", self.state.step, {"epoch": epoch, **score})
        self.metrics.sync()
        return f"k-NN {score['top1']:.1%} (k={score['k']})"

    def _check_losses(self) -> None:
        """Stop a run that has diverged, its curves drawn as far as they go; every process finds the same."""
        losses, self.unchecked = self.unchecked, []
        try:
            self.saver.check_losses(losses)
        except GrocoError:
            self._draw()
            raise

    def _save_if_due(self) -> None:
        """Save when it is time, at the end, and when a signal came: then stop, unless all is done."""
        due = self.processes.is_first and self.saver.due()  # by the first one's clock
        asked = self.processes.agreed(self.stop.signal or (_DUE if due else 0))
        over = self.state.step == self.total
        if not (asked or over):
            return
        self._check_losses()
        self._save()
        if asked > _DUE and not over:
            self._stop(asked)

    def _stop(self, number: int) -> NoReturn:
        """Stop as a signal asked for, saved."""
        self._save()
        self._draw()
        raise Interrupted(
            f"after step {self.state.step} of {self.total}, saved in {self.folder.path}",
            f"go on with: {self.folder.resume_command}",
            number,
        )

    def _save(self) -> None:
        """The first process's work, once a step."""
        if self.processes.is_first and self.saver.kept != self.state.step:
            self.metrics.sync()
            self.saver.save()
        self.processes.wait()

    def _draw(self) -> None:
        """The first process's work; the others wait, or would be the first to tell why the run ends."""
        if self.processes.is_first:
            self.curves.draw()
        self.processes.wait()
