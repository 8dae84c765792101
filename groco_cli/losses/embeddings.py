"""From the projections of this process to what all losses compare: unit embeddings, gathered from every process."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from groco_cli.losses.gathering import gathered


@dataclass(frozen=True)
class Embeddings:
    """The anchors of this process, and everything that they are compared with.

    Args:
        anchors: Unit embeddings of this process's images, [m, B, D].
        others: Unit embeddings of all processes' images, [m, B·world, D]; without a gradient where it is stopped.
        offset: Where this process's images begin among the others.
    """

    anchors: Tensor
    others: Tensor
    offset: int

    @property
    def views(self) -> int:
        """Number of views m."""
        return len(self.anchors)

    @property
    def own(self) -> Tensor:
        """The others that are views of the anchors' own images, [m, B, D]."""
        return self.others[:, self.offset : self.offset + self.anchors.shape[1]]


def embed(projections: Sequence[Tensor], targets: Sequence[Tensor] | None = None, *, stop_gradient: bool) -> Embeddings:
    """Normalise projections, in float32 (float64 stays), and gather those of other processes.

    The gradient of what was gathered is summed over the processes and flows back to where it came from. With each
    process's loss a mean over its own anchors, and parameter gradients averaged over processes as DDP does, the result
    is the gradient of one process on the whole batch. The released code's own gathering drops the other processes'
    share (losses/utils.py), which matters where the gradient is not stopped.

    Args:
        projections: One tensor [B, D] a view, the same B in every process.
        targets: What the anchors are compared with, in the same form (a momentum encoder's projections); the anchors
            themselves where None.
        stop_gradient: Whether the others are constants (section 4.1).
    """
    anchors = _unit(projections)
    others = anchors if targets is None else _unit(targets)
    others = others.detach() if stop_gradient else others
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Embeddings(anchors, others, 0)
    return Embeddings(anchors, torch.cat(tuple(gathered(others)), dim=1), dist.get_rank() * anchors.shape[1])


def _unit(projections: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(tuple(projections))
    return F.normalize(stacked if stacked.dtype == torch.float64 else stacked.float(), dim=-1)
