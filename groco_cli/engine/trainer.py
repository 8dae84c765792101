"""Pre-training, from settings to a run's folder; the loop reads top to bottom."""

from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from groco_cli import devices
from groco_cli.data.loader import ViewLoader
from groco_cli.data.pool import dead_workers_explained
from groco_cli.engine.announcement import announce
from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.compiling import compiler_explained, uncompiled
from groco_cli.engine.configuration import to_toml
from groco_cli.engine.curves import draw_curves
from groco_cli.engine.feeding import check_batch, decoders, open_training_set, view_loader
from groco_cli.engine.interrupt import Interrupted, StopRequest
from groco_cli.engine.methods import Compared
from groco_cli.engine.metrics import MetricsLog, NoLog, read_metrics
from groco_cli.engine.monitor import KNNMonitor, knn_monitor
from groco_cli.engine.objective import build_loss
from groco_cli.engine.pace import Pace, Stopwatch
from groco_cli.engine.processes import Processes, joined
from groco_cli.engine.report import Report
from groco_cli.engine.run_folder import RunFolder, new_run_folder
from groco_cli.engine.run_lock import held
from groco_cli.engine.saving import Saver
from groco_cli.engine.schedule import learning_rate
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.sinks import check_installed, open_sinks
from groco_cli.engine.step import TrainingStep, build_step
from groco_cli.files import atomic_write
from groco_cli.losses.statistics import similarity_statistics

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
        GrocoError: If the data cannot be read, the folder cannot be written to, or the loss is no longer finite.
        Interrupted: If SIGINT or SIGTERM came; the run is saved and can be resumed.
    """
    check_installed(settings.run.log_to)
    with joined(settings.run) as processes:
        return _pretrain(settings, resume, processes)


def _pretrain(settings: PretrainSettings, resume: RunFolder | None, processes: Processes) -> Path:
    device = processes.device
    precision = devices.choose_precision(settings.run.precision, device)
    dataset = open_training_set(settings.data)
    loss = build_loss(settings.loss, settings.method.method)
    check_batch(settings, dataset.name, len(dataset.train), loss)
    loader = view_loader(settings, dataset.train, processes)
    step = build_step(settings, loss, processes, precision)
    folder = resume or RunFolder(
        Path(processes.from_first(lambda: str(new_run_folder(settings.run.output, settings.recipe).path)))
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
        monitor = knn_monitor(dataset, device, decoders(settings.data, processes), settings.data.on_bad_image)
        _Run(settings, folder, processes, loader, step, saver, monitor).train()
    return folder.path


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

    @property
    def state(self) -> TrainingState:
        """All that changes while training."""
        return self.step.state

    def train(self) -> None:
        """The loop: from the state's step to the end, or until asked to stop."""
        state, run, batch_size = self.state, self.settings.run, self.settings.optim.batch_size
        first = self.processes.is_first
        per_epoch, epochs = len(self.loader), self.settings.optim.epochs
        total = per_epoch * epochs
        sinks = open_sinks(self.settings, self.folder.path, state.step) if first else []
        with (
            dead_workers_explained(),
            compiler_explained(),
            closing(MetricsLog(self.folder.metrics, self.saver.kept, sinks) if first else NoLog()) as metrics,
            StopRequest() as stop,
            Report(state.step, total, epochs) as report,
        ):
            if self.saver.kept is None:
                if self.monitor:
                    report.note(f"untrained  {self._score(metrics, 0)}")
                self._save(metrics)  # a disk that has no room for it is found out now, not in an hour
            self.step.model.train()
            for epoch in range(state.step // per_epoch, epochs):
                stopwatch = Stopwatch(batch_size, self.processes.device)
                for views in stopwatch.waiting(self.loader.epoch(epoch, start=state.step % per_epoch)):
                    rate = self._rate(total, per_epoch)
                    loss, compared = self.step(views, progress=state.step / total, rate=rate)
                    stopwatch.done(loss)
                    report.step(state.step)
                    if state.step % run.log_every == 0:
                        self._log(metrics, loss, compared, stopwatch.read())
                        report.pace(stopwatch.read())
                    if state.step % per_epoch:  # what is due at the end of an epoch comes after its score
                        self._save_if_due(metrics, stopwatch, stop.signal, total)
                number, pace = epoch + 1, stopwatch.read()
                self.saver.check_loss(pace.loss)
                due = number == epochs or (run.knn_every and number % run.knn_every == 0)
                knn = self._score(metrics, number) if due else ""
                report.epoch(number, pace, knn)
                self._save_if_due(metrics, stopwatch, stop.signal, total)
        if first:
            draw_curves(read_metrics(self.folder.metrics), self.folder.curves, self._title())

    def _rate(self, total: int, per_epoch: int) -> float:
        optim = self.settings.optim
        return learning_rate(
            self.state.step,
            peak=optim.peak_learning_rate,
            warmup_steps=optim.warmup_epochs * per_epoch,
            total_steps=total,
        )

    def _log(self, metrics: MetricsLog | NoLog, loss: Tensor, compared: Compared, pace: Pace) -> None:
        """Write a line about this step; the one place that waits for the device within an epoch."""
        positive, negative = map(
            self.processes.mean,
            similarity_statistics(compared.anchors, self.settings.views.views, compared.targets),
        )
        self.saver.check_loss(pace.loss)
        metrics.write(
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

    def _score(self, metrics: MetricsLog | NoLog, epoch: int) -> str:
        """The k-NN score of the curve, where there are labels; the first process's work."""
        score = None
        if self.monitor and self.processes.is_first:
            with uncompiled() if self.settings.run.compile else nullcontext():
                score = self.monitor.score(self.step.model.encoder)
        self.processes.wait()
        if score is None:
            return ""
        metrics.write("knn", self.state.step, {"epoch": epoch, **score})
        return f"k-NN {score['top1']:.1%} (k={score['k']})"

    def _save_if_due(self, metrics: MetricsLog | NoLog, stopwatch: Stopwatch, signal: int | None, total: int) -> None:
        """Save when it is time, at the end, and when a signal came: then stop, unless all is done."""
        due = self.processes.is_first and self.saver.due()  # by the first one's clock
        asked = self.processes.agreed(signal or (_DUE if due else 0))
        over = self.state.step == total
        if not (asked or over):
            return
        self.saver.check_loss(stopwatch.read().loss)
        self._save(metrics)
        if asked > _DUE and not over:
            raise Interrupted(
                f"after step {self.state.step} of {total}, saved in {self.folder.path}",
                f"go on with: groco pretrain --resume --output {self.folder.path}",
                asked,
            )

    def _save(self, metrics: MetricsLog | NoLog) -> None:
        """The first process's work."""
        if self.processes.is_first:
            metrics.sync()
            self.saver.save()
        self.processes.wait()

    def _title(self) -> str:
        settings = self.settings
        return (
            f"{settings.recipe}: {settings.model.arch} on {settings.data.data}, {settings.optim.epochs} epochs, "
            f"batch {settings.optim.batch_size}"
        )
