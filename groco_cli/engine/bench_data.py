"""How fast pictures become views on this machine: stage by stage, and against the usual Pillow pipeline."""

import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import FileSource, MemorySource, Source
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import View
from groco_cli.data.workers import CroppedViews, Request
from groco_cli.engine.official_views import official_pipeline
from groco_cli.errors import GrocoError
from groco_cli.wording import counted

_BATCH = 32
_GENERATED = 128


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one part of the way from a file to its views takes.

    Args:
        name: "read", "decode", "crop", "worker" (these three together), "photometric", "all", or "official".
        milliseconds: An image, with all its views; median over passes.
    """

    name: str
    milliseconds: float

    @property
    def images_per_second(self) -> float:
        """What one core does if it does nothing else."""
        return 1000 / self.milliseconds


def bench_data(
    source: Source,
    views: Sequence[View],
    *,
    device: torch.device,
    repeats: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Stage]:
    """Measure each stage on one core; the photometric one on the device.

    Args:
        source: Images in files.
        views: How each view is drawn.
        device: Where the photometric part runs.
        repeats: Passes over the images that the median is taken of, behind one to warm up.
        advance: Called after each pass of a stage.

    Raises:
        GrocoError: If the images lie in memory, where there is nothing to read and decode, or one is bad.
    """
    if isinstance(source, MemorySource):
        raise GrocoError("these images lie in memory: there is nothing to read or decode", "name a folder of images")
    passes = _passes(source, tuple(views), device)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    with _one_thread():
        for _ in range(repeats + 1):
            for name, run in passes.items():  # in turn, so that a busy moment of the machine meets all of them
                begun = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[name].append(time.perf_counter() - begun)
                advance()
    count = len(source) // _BATCH * _BATCH
    taken = {name: statistics.median(times[1:]) * 1000 / count for name, times in seconds.items()}
    taken["crop"] = max(1e-6, taken["worker"] - taken["read"] - taken["decode"])
    order = ("read", "decode", "crop", "worker", "photometric", "all", "official")
    return [Stage(name=name, milliseconds=taken[name]) for name in order]


def generated_jpegs(folder: Path) -> FileSource:
    """JPEGs of about ImageNet's size and detail, for machines without images.

    Args:
        folder: Where to write them.
    """
    random = np.random.default_rng(0)
    paths = []
    for number in range(_GENERATED):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        detail = random.normal(0, 6, (375, 500, 1))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) + detail
        paths.append(folder / f"{number:03}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return FileSource(tuple(paths), None, ())


def _passes(source: Source, views: tuple[View, ...], device: torch.device) -> dict[str, Callable[[], None]]:
    """What is run over all images for each stage."""
    normalisation = Normalisation()
    batches = [np.arange(start, start + _BATCH) for start in range(0, len(source) - _BATCH + 1, _BATCH)]
    if not batches:
        raise GrocoError(f"{counted(len(source), 'image')}: too few to measure", f"name a folder with {_BATCH} or more")
    encoded = [source.open(i) for i in range(len(source))]
    worker = CroppedViews(source, views, seed=0)
    loader = ViewLoader(
        source,
        views,
        batch_size=_BATCH,
        order=shuffled(len(source), 0),
        normalisation=normalisation,
        seed=0,
        device=device,
        workers=0,
    )
    prepared = [worker.__getitems__(Request(0, batch, batch)) for batch in batches[:8]]
    bad = next((image for batch in prepared for image in batch.bad), None)
    if bad:
        raise GrocoError(f"cannot decode {bad.name}: {bad.reason}", "replace the file or move it away")
    pipelines = [official_pipeline(view, normalisation) for view in views]
    count = len(batches) * _BATCH

    def read() -> None:
        for number in range(count):
            _ = source.open(number).content

    def decode() -> None:
        for number in range(count):
            encoded[number].pixels()

    def crop() -> None:
        for batch in batches:
            worker.__getitems__(Request(0, batch, batch))

    def photometric() -> None:
        for number in range(len(batches)):
            batch = prepared[number % len(prepared)]
            loader.finish(0, batch.samples.numpy(), batch.pictures)

    def everything() -> None:
        for _ in loader.epoch(0):
            pass

    def official() -> None:
        for number in range(count):
            image = Image.open(io.BytesIO(source.open(number).content)).convert("RGB")
            for pipeline in pipelines:
                pipeline(image)

    return {
        "read": read,
        "decode": decode,
        "worker": crop,
        "photometric": photometric,
        "all": everything,
        "official": official,
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
