"""The triplet loss with the strongest negatives, the paper's baseline (section 4.4, Table 7)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groco_cli.losses.embeddings import check_views, embed
from groco_cli.losses.negatives import check_negatives, negative_similarities, positive_similarities, strongest


class TripletLoss(nn.Module):
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
        super().__init__()
        if not margin >= 0:
            raise ValueError(f"margin must not be negative, but is {margin}")
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {num_negatives}")
        self.margin = margin
        self.num_negatives = num_negatives
        self.stop_gradient = stop_gradient

    def available_negatives(self, batch: int, views: int) -> int:
        """How many negatives an anchor has in a batch of B images with m views each."""
        return views * (batch - 1)

    def forward(self, projections: Sequence[Tensor], positive_views: int | None = None) -> Tensor:
        """The loss, averaged over all triplets; computed in float32 (float64 stays).

        Args:
            projections: One tensor [B, D] a view, m ≥ 2 of them, unnormalised.
            positive_views: The first of the views that serve as positives, at least 2; all of them where None.

        Returns:
            A scalar.

        Raises:
            ValueError: If there are too few views, or fewer negatives than `num_negatives`.
        """
        positive_views = check_views(projections, positive_views)
        with torch.autocast(projections[0].device.type, enabled=False):
            embeddings = embed(projections, stop_gradient=self.stop_gradient)
            batch = embeddings.others.shape[1]
            check_negatives(self.num_negatives, self.available_negatives(batch, embeddings.views), batch)
            losses = []
            for view in range(embeddings.views):
                positives = positive_similarities(embeddings, view, positive_views)  # [B, K]
                negatives = strongest(negative_similarities(embeddings, view, slice(None)), self.num_negatives)
                excess = negatives[:, None] - positives[:, :, None]  # d_p - d_n, [B, K, N]
                hinged = excess if math.isinf(self.margin) else (excess + self.margin).relu()
                losses.append(hinged.mean(dim=(1, 2)))
            return torch.cat(losses).mean()
