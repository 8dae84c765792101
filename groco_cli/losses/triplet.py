"""The triplet loss with the strongest negatives, the paper's baseline (section 4.4, Table 7)."""

import math

import torch
from torch import Tensor

from groco_cli.losses.base import ViewLoss
from groco_cli.losses.embeddings import Embeddings
from groco_cli.losses.negatives import positive_similarities, strongest_negatives


class TripletLoss(ViewLoss):
    """max(d_p - d_n + r, 0) over all positives and the strongest negatives of each anchor, averaged.

    Distances are cosine distances (-cos), as for GroCo. The paper does not say how it reduces the triplets; here it is
    the mean over all of them.

    Args:
        margin: r; with infinity there is no hinge, and the constant is left out: d_p - d_n.
        num_negatives: The strongest negatives that are kept for each anchor.
        stop_gradient: Compare each anchor with constants, as GroCo does (section 4.1).

    Raises:
        ValueError: For a negative margin, or fewer than one negative.

    Example:
        >>> import torch
        >>> TripletLoss(margin=0.8)([torch.randn(16, 8), torch.randn(16, 8)]).shape
        torch.Size([])
    """

    def __init__(self, margin: float = 0.8, num_negatives: int = 10, stop_gradient: bool = True) -> None:
        super().__init__(num_negatives, stop_gradient)
        if not margin >= 0:
            raise ValueError(f"margin must not be negative, but is {margin}")
        self.num_negatives: int = num_negatives
        self.margin = margin

    def compare(self, embeddings: Embeddings, positive_views: int) -> Tensor:
        """The mean over the triplets of each anchor, and over the anchors."""
        losses = []
        for view in range(embeddings.views):
            positives = positive_similarities(embeddings, view, positive_views)  # [B, K]
            negatives = strongest_negatives(embeddings, view, self.num_negatives)
            excess = negatives[:, None] - positives[:, :, None]  # d_p - d_n, [B, K, N]
            hinged = excess if math.isinf(self.margin) else (excess + self.margin).relu()
            losses.append(hinged.mean(dim=(1, 2)))
        return torch.cat(losses).mean()
