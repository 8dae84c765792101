"""How the views of a batch go through the networks: together or each by itself, and in micro-batches to save memory.

A contrastive loss needs the whole batch at once, but the encoder does not. Gradient caching (Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021) encodes it in parts without keeping what a
backward pass needs, takes the gradient of the loss with respect to what came out, and encodes each part again, now to
pass its share of that gradient on. That is activation checkpointing (Chen et al., 2016), its segment being the
encoder's pass over a micro-batch, and so torch's own does it: one backward pass, with gradients that processes average
once, random layers drawn alike both times, and the precision of the first pass in the second.

Only the encoder sees micro-batches. The heads see all features of the batch, as ever: their activations are small, and
their BN takes its statistics over the whole batch, so that the gradient of an encoder without BN is that of one pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

FORWARDS = ("joint", "per-view")


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Which images go through an encoder together.

    Args:
        forward: "joint": views of one size go through the encoder together, and all features through the heads; or
            "per-view": each view goes through all networks by itself, so that BN's statistics are its own. That is what
            the released codes of GroCo and MoCo v3 do.
        micro_batch: At most so many images of this process's part of a batch, with all their views that go together; 0
            for all of them.
    """

    forward: str = "joint"
    micro_batch: int = 0

    def project(self, views: Sequence[Tensor], encoder: nn.Module, heads: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Projections [B, D] of each view.

        Args:
            views: Images [B, 3, size, size], views of one size next to each other.
            encoder: From images to features.
            heads: From features to projections.
        """
        if self.forward == "per-view":
            return [heads(self._features([view], encoder)) for view in views]
        sizes = [view.shape[-1] for view in views]
        features = [
            self._features([view for view in views if view.shape[-1] == size], encoder) for size in dict.fromkeys(sizes)
        ]
        return list(heads(torch.cat(features)).chunk(len(views)))

    def smallest(self, batch: int) -> int:
        """Images in the smallest micro-batch of a batch of B."""
        return batch // self._parts(batch)

    def _parts(self, batch: int) -> int:
        return -(-batch // self.micro_batch) if self.micro_batch else 1

    def _features(self, views: Sequence[Tensor], encoder: nn.Module) -> Tensor:
        """Features of views of one size, [views · B, D], view after view."""
        parts = self._parts(len(views[0]))
        if parts == 1:
            return _encoded(encoder, *views)
        # As even as can be, for the sake of BN: 33 images in parts of at most 32 are 17 and 16.
        micro_batches = zip(*(view.tensor_split(parts) for view in views), strict=True)
        features = [_encoded_twice(encoder, *images).chunk(len(views)) for images in micro_batches]
        return torch.cat([part for view in zip(*features, strict=True) for part in view])


def _encoded(encoder: nn.Module, *views: Tensor) -> Tensor:
    features: Tensor = encoder(torch.cat(views) if len(views) > 1 else views[0])
    return features


def _encoded_twice(encoder: nn.Module, *views: Tensor) -> Tensor:
    """Features whose graph is built in the backward pass; without gradients there is nothing to build."""
    if not torch.is_grad_enabled():
        return _encoded(encoder, *views)
    features: Tensor = checkpoint(
        lambda *images: _encoded(encoder, *images),
        *views,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(encoder)),
    )
    return features


@contextmanager
def _statistics_kept(encoder: nn.Module) -> Iterator[None]:
    """Leave BN's running statistics as the first pass made them: the second updates copies."""
    kept = [(module, dict(module._buffers)) for module in encoder.modules() if isinstance(module, _NormBase)]
    for module, buffers in kept:
        module._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
