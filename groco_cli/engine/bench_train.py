"""How fast a training step is here: part by part, fed with data, and against a bare loop of torch."""

import copy
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from operator import truediv

import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sources import MemorySource, Source
from groco_cli.engine.bare_loop import BareLoop
from groco_cli.engine.compiling import compile_networks, compiler_explained, uncompiled
from groco_cli.engine.feeding import check_batch, decoders, open_training_set, view_loader
from groco_cli.engine.memory import memory_explained
from groco_cli.engine.objective import build_loss
from groco_cli.engine.pace import Pace, Stopwatch
from groco_cli.engine.processes import Processes
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.step import TrainingStep, build_step

_WARM_UPS = 3
_IN_STORE = 2  # batches that each worker has ready: a loop is measured once they are used up
_SHUFFLED = 1000  # batches of generated pictures an epoch: enough that no measurement meets its end
_RATE = 1e-4  # noise is nothing to learn from, and no weight should become infinite of it


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What `--compile` costs and brings.

    Args:
        seconds: What the first step took beyond a usual one: the compilation, or fetching it from torch's cache.
        uncompiled: Median seconds of groco's step on views that are ready, its networks called as they were written.
        ratio: Median, over pairs of steps one after the other, of the compiled step's time over the uncompiled one's.
    """

    seconds: float
    uncompiled: float
    ratio: float

    @property
    def pays_after(self) -> float | None:
        """Steps until what was saved makes up for the compilation; None where nothing is saved."""
        saved = (1 - self.ratio) * self.uncompiled
        return self.seconds / saved if saved > 0 else None

    def __str__(self) -> str:
        steps = self.pays_after
        pays = "which it never makes up for" if steps is None else f"made up for after {steps:,.0f} steps"
        spent = f"compiling took {self.seconds:.0f} s, {pays}"
        return f"compiled it takes {self.ratio:.3f} times the uncompiled step's; {spent}"


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """What a recipe's step takes.

    Args:
        data: What it was fed with.
        device: Where, for people.
        precision: In which: "fp32", "bf16" or "fp16".
        pace: Of the loop as it trains, fed with data.
        parts: Median seconds of "data", "forward", "loss", "backward" and "optimiser", each waited for.
        step: Median seconds of groco's step on views that are ready.
        bare: Likewise of the bare loop's; None with micro-batches, which it has not.
        ratio: Median, over pairs of steps one after the other, of groco's time over the bare loop's; None likewise.
        compilation: What compiling costs and brings; None where nothing is compiled.
        peak_bytes: Most of the GPU's memory in use at a time as it trains; None on other devices.
    """

    data: str
    device: str
    precision: str
    pace: Pace
    parts: dict[str, float]
    step: float
    bare: float | None
    ratio: float | None
    compilation: Compilation | None
    peak_bytes: int | None

    def shares(self) -> dict[str, float]:
        """Each part's share of their sum."""
        total = sum(self.parts.values())
        return {part: seconds / total for part, seconds in self.parts.items()}


def passes(repeats: int) -> int:
    """How often `bench_train` calls `advance`."""
    return 3 * repeats


def bench_train(
    settings: PretrainSettings, *, generated: bool, repeats: int, advance: Callable[[], None] = lambda: None
) -> TrainingSpeed:
    """Measure a training step, in this process alone.

    Args:
        settings: The run's that would be trained.
        generated: Draw the views of a picture made on the device; else of those that `settings` name.
        repeats: Steps that each figure is taken of.
        advance: Called after each of the steps that are measured.

    Raises:
        UsageError: If a setting does not fit the data or the machine.
        GrocoError: If the data cannot be read, a step does not fit into memory, or nothing can be compiled.
    """
    processes = Processes(device=devices.choose_device(settings.run.device))
    device = processes.device
    precision = devices.choose_precision(settings.run.precision, device)
    name, source = _generated(settings, device) if generated else _opened(settings)
    loss = build_loss(settings.loss, settings.method.method)
    check_batch(settings, name, len(source), loss)
    loader = view_loader(settings, source, processes)
    feed = (views for epoch in count() for views in loader.epoch(epoch))
    step = build_step(settings, loss, processes, precision)
    step.model.train()

    def train(views: list[Tensor], done: Callable[[str], None] | None = None) -> Tensor:
        return step(views, progress=0.0, rate=_RATE, done=done)[0]

    def train_uncompiled(views: list[Tensor]) -> Tensor:
        with uncompiled():
            return train(views)

    with (
        dead_workers_explained(),
        compiler_explained(),
        memory_explained(settings, processes),
        devices.convolutions_tuned(device),
    ):
        first = _seconds(partial(train, next(feed)), device)
        for views in islice(feed, _WARM_UPS + _IN_STORE * decoders(settings.data, processes) * (not generated)):
            train(views)
        pace, peak = _pace(settings, feed, train, device, repeats, advance)
        parts = _parts(feed, train, device, repeats, advance)
        views = next(feed)
        loops: dict[str, Callable[[list[Tensor]], Tensor]] = {"groco": train}
        if not settings.optim.micro_batch:
            loops["bare"] = _bare_loop(settings, step, precision)
        if settings.run.compile:
            loops["uncompiled"] = train_uncompiled
        taken = _in_turn({name: partial(loop, views) for name, loop in loops.items()}, device, repeats, advance)
    own = taken["groco"]
    return TrainingSpeed(
        data=name,
        device=devices.describe(device),
        precision=precision,
        pace=pace,
        parts=parts,
        step=statistics.median(own),
        bare=statistics.median(taken["bare"]) if "bare" in taken else None,
        ratio=_ratio(own, taken["bare"]) if "bare" in taken else None,
        compilation=_compilation(first, own, taken["uncompiled"]) if "uncompiled" in taken else None,
        peak_bytes=peak,
    )


def _bare_loop(settings: PretrainSettings, step: TrainingStep, precision: str) -> BareLoop:
    """A bare loop with networks of its own, as they are now; a copy of compiled ones is not compiled."""
    model = copy.deepcopy(step.model)
    if settings.run.compile:
        compile_networks(model)
    return BareLoop(model, step.loss, settings, precision=precision, rate=_RATE)


def _opened(settings: PretrainSettings) -> tuple[str, Source]:
    dataset = open_training_set(settings.data)
    return dataset.name, dataset.train


def _generated(settings: PretrainSettings, device: torch.device) -> tuple[str, Source]:
    """One picture of noise on the device, for as many as it takes; of the size that pictures are measured in."""
    side = settings.views.evaluation_resize
    picture = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, device=device)
    images = picture.expand(_SHUFFLED * settings.optim.batch_size, -1, -1, -1)
    return f"generated {side}×{side} pictures", MemorySource(images, None, ())


def _pace(
    settings: PretrainSettings,
    feed: Iterator[list[Tensor]],
    train: Callable[[list[Tensor]], Tensor],
    device: torch.device,
    repeats: int,
    advance: Callable[[], None],
) -> tuple[Pace, int | None]:
    """The loop as it trains, nothing waited for but the data; and the memory that it takes."""
    _wait_for(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stopwatch = Stopwatch(settings.optim.batch_size, device)
    for views in stopwatch.waiting(islice(feed, repeats)):
        stopwatch.done(train(views))
        advance()
    pace = stopwatch.read()
    return pace, devices.peak_memory(device)


def _parts(
    feed: Iterator[list[Tensor]],
    train: Callable[..., Tensor],
    device: torch.device,
    repeats: int,
    advance: Callable[[], None],
) -> dict[str, float]:
    """Median seconds of each part, the device being waited for after each."""
    seconds: dict[str, list[float]] = {}
    last = 0.0

    def done(part: str) -> None:
        nonlocal last
        _wait_for(device)
        now = time.perf_counter()
        seconds.setdefault(part, []).append(now - last)
        last = now

    for _ in range(repeats):
        _wait_for(device)
        last = time.perf_counter()
        views = next(feed)
        done("data")
        train(views, done)
        advance()
    return {part: statistics.median(taken) for part, taken in seconds.items()}


def _in_turn(
    steps: Mapping[str, Callable[[], Tensor]], device: torch.device, repeats: int, advance: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each step, `repeats` times in turn, each going first as often: a busy moment meets all."""
    for step in [*steps.values()] * _WARM_UPS:
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = deque(steps)
    for _ in range(repeats):
        for name in order:
            seconds[name].append(_seconds(steps[name], device))
        order.rotate()
        advance()
    return seconds


def _ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Median of each over the one that was taken beside it."""
    return float(statistics.median(map(truediv, seconds, others)))


def _compilation(first: float, compiled: Sequence[float], uncompiled: Sequence[float]) -> Compilation:
    return Compilation(
        seconds=first - statistics.median(compiled),
        uncompiled=statistics.median(uncompiled),
        ratio=_ratio(compiled, uncompiled),
    )


def _seconds(step: Callable[[], Tensor], device: torch.device) -> float:
    _wait_for(device)
    begun = time.perf_counter()
    step()
    _wait_for(device)
    return time.perf_counter() - begun


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
