"""The contrastive loss of MoCo v3 (Chen, Xie and He, ICCV 2021, section 3 and algorithm 1)."""

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.losses.base import ViewLoss
from groco_cli.losses.embeddings import Embeddings
from groco_cli.losses.negatives import negative_similarities, strongest_negatives


class MoCoLoss(ViewLoss):
    """ctr(q₁, k₂) + ctr(q₂, k₁): the softmax picks a prediction's own key among those of one view, times 2τ.

    It differs from SimCLR's `InfoNCELoss` in its negatives (the positive's view of the other images, not every view)
    and in the factor. With more than two views it is averaged over the pairs of views.

    Args:
        temperature: τ, 0.2 for ViTs as published.
        num_negatives: Only so many of the strongest negatives; all where None.
        stop_gradient: Compare with constants; a momentum encoder's keys always are.

    Raises:
        ValueError: For a temperature that is not positive, or fewer than one negative.

    Example:
        >>> import torch
        >>> predictions, keys = [[torch.randn(16, 8), torch.randn(16, 8)] for _ in range(2)]
        >>> MoCoLoss(temperature=0.2)(predictions, targets=keys).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.2, num_negatives: int | None = None, stop_gradient: bool = True) -> None:
        super().__init__(num_negatives, stop_gradient)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature

    def available_negatives(self, batch: int, views: int) -> int:
        """One of each other image."""
        return batch - 1

    def compare(self, embeddings: Embeddings, positive_views: int) -> Tensor:
        """The mean over ordered pairs of views, one of them global, and images; times two and 2τ."""
        losses = []
        for view, partner in permutations(range(embeddings.views), 2):
            if min(view, partner) >= positive_views:
                continue
            candidates = slice(partner, partner + 1)
            if self.num_negatives is None:
                negatives = negative_similarities(embeddings, view, candidates)
            else:
                negatives = strongest_negatives(embeddings, view, self.num_negatives, candidates)
            against = (negatives / self.temperature).logsumexp(dim=1)
            positive = torch.einsum("bd,bd->b", embeddings.anchors[view], embeddings.own[partner]) / self.temperature
            losses.append(F.softplus(against - positive))  # -log (e^p / (e^p + e^against))
        return torch.cat(losses).mean() * 2 * (2 * self.temperature)
