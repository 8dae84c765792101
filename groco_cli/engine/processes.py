"""The processes that train together: how they divide a batch, and what they have in common after a step."""

import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from groco_cli.data.loader import Share
from groco_cli.distributed import peers
from groco_cli.engine.batchnorm import Model, with_common_statistics
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import RunSettings
from groco_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Processes(peers.Peers):
    """This process, and those that it trains with."""

    def share(self, batch_size: int) -> Share:
        """This process's part of each batch: the one place where a batch is divided.

        Raises:
            UsageError: If it does not divide.
        """
        over = batch_size % self.world
        if over:
            fewer, more = batch_size - over, batch_size - over + self.world
            raise UsageError(
                f"--batch-size {batch_size} does not divide among {self.world} processes",
                f"type --batch-size {f'{fewer} or ' if fewer else ''}{more}",
            )
        return Share(self.rank, self.world)

    def check_resumed(self, run: RunFolder | None) -> None:
        """Check that all go on with one run: each looks for the newest by itself, and one may begin in between.

        Raises:
            UsageError: If this one found another run than the first process.
        """
        if run is None:
            return
        first = self.from_first("resumed run", lambda: str(run.path))
        if first != str(run.path):
            raise UsageError(
                f"--resume: the newest run is {run.path} here, and {first} for the first process",
                f"type --output {shlex.quote(first)}",
            )

    def together(self, model: Model) -> Model:
        """A model whose BN takes its statistics over the whole batch; before its optimizer is made."""
        return with_common_statistics(model, self.device) if self.world > 1 else model

    def parallel(self, model: nn.Module) -> Callable[..., Any]:
        """What to call in place of the model: gradients are averaged over processes, the first one's weights taken."""
        # Of 1×1 convolutions in channels_last, which has several strides for them: nothing is lost by it.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(model) if self.world > 1 else model

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the processes' values, each a mean over equal parts of the batch; no gradient."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world


@contextmanager
def joined(run: RunSettings) -> Iterator[Processes]:
    """Join the processes that were started to train with this one, if there are any (`peers.joined`)."""
    with peers.joined(run.launch()) as joining:
        yield Processes(**vars(joining))
