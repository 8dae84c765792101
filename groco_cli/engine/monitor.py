"""The k-NN score of the curve: cheap, on clean pictures, on all held-out ones against a capped bank."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from groco_cli import console, devices
from groco_cli.data.sources import Dataset, thinned
from groco_cli.distributed.collectives import alone
from groco_cli.errors import GrocoError
from groco_cli.evaluation.knn import TEMPERATURE
from groco_cli.evaluation.protocol import KNNResult, evaluate_knn
from groco_cli.models import Encoder

_BANK = 10_000
_K = 20


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A score was given up, since the run is to stop."""


@dataclass(frozen=True, kw_only=True)
class KNNMonitor:
    """Scores the encoder while it is trained.

    Args:
        dataset: With its bank capped.
        k: Number of neighbours; fewer where not so many images of the bank can be decoded.
        device: Where to compute.
        workers: Processes that decode.
        on_bad_image: "error", or "skip" to leave bad ones out.
    """

    dataset: Dataset
    k: int
    device: torch.device
    workers: int
    on_bad_image: str = "error"

    def score(self, encoder: Encoder, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """What goes to metrics.jsonl: k, top1, top5, and the number of images in the bank and among the queries.

        None, with a warning, where memory is short, FAISS fails or an image cannot be read: no run is to end for that.

        Args:
            encoder: As it is now.
            stop: Asked after each batch whether to give up.

        Raises:
            Stopped: If it said so.
        """

        def advance(count: int) -> None:
            if stop():
                raise Stopped

        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # FAISS has memory of its own, and cannot take what torch keeps in store
        try:
            result = self._evaluated(encoder, advance)
        except (GrocoError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _survived(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            console.warn(f"no k-NN score ({reason}); training goes on")
            return None
        ((k, score),) = result.scores.items()
        return {"k": k, "top1": score.top1, "top5": score.top5, "bank": result.bank, "queries": result.queries}

    def _evaluated(self, encoder: Encoder, advance: Callable[[int], None]) -> KNNResult:
        with alone():  # while a run is trained its first process scores
            return evaluate_knn(
                encoder,
                self.dataset,
                ks=(self.k,),
                temperature=TEMPERATURE,
                device=self.device,
                workers=self.workers,
                on_bad_image=self.on_bad_image,
                advance=advance,
            )


def knn_monitor(dataset: Dataset, device: torch.device, workers: int, on_bad_image: str) -> KNNMonitor | None:
    """A monitor for a data set; None where it has no labels, or one class only.

    Args:
        dataset: Its training images, thinned out to 10,000, become the bank.
        device: Where to compute.
        workers: Processes that decode.
        on_bad_image: What happens to images that cannot be decoded: "error" or "skip".
    """
    if dataset.train.labels is None or len(dataset.train.classes) < 2:
        return None
    if dataset.test is not None and dataset.test.labels is None:
        return None
    bank = thinned(dataset.train, _BANK)
    k = min(_K, len(bank) - (dataset.test is None))
    if k <= 0:
        return None
    dataset = replace(dataset, train=bank)
    return KNNMonitor(dataset=dataset, k=k, device=device, workers=workers, on_bad_image=on_bad_image)


def _survived(error: RuntimeError) -> bool:
    """Whether memory was short, or FAISS failed, which raises nothing more special: other such errors are mistakes."""
    return devices.out_of_memory(error) or "faiss" in str(error)
