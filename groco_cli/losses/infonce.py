"""InfoNCE over two or more views: the loss of SimCLR (van den Oord et al., 2018; Chen et al., 2020)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groco_cli.losses.embeddings import check_views, embed
from groco_cli.losses.negatives import check_negatives, negative_similarities, positive_similarities, strongest


class InfoNCELoss(nn.Module):
    """-log of the softmax that picks an anchor's positive from among all views of all other images.

    With more than two views the loss is averaged over all pairs of views of an image, in both directions; a pair's
    negatives are every view of every other image, and the image's further views are left out. In multi-crop a pair has
    at least one global view. That is the released code's SimCLR baseline (losses/nt_xent_all_combinations.py), except
    that gradients from other processes are kept.

    Args:
        temperature: τ.
        num_negatives: Only so many of the strongest negatives; all where None (the paper's top-10 study takes 10).
        stop_gradient: Compare each anchor with constants, as GroCo does.

    Raises:
        ValueError: For a temperature that is not positive, or fewer than one negative.

    Example:
        >>> import torch
        >>> InfoNCELoss(temperature=0.1)([torch.randn(16, 8), torch.randn(16, 8)]).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.1, num_negatives: int | None = None, stop_gradient: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        if num_negatives is not None and num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {num_negatives}")
        self.temperature = temperature
        self.num_negatives = num_negatives
        self.stop_gradient = stop_gradient

    def available_negatives(self, batch: int, views: int) -> int:
        """How many negatives an anchor has in a batch of B images with m views each."""
        return views * (batch - 1)

    def forward(self, projections: Sequence[Tensor], positive_views: int | None = None) -> Tensor:
        """The loss, averaged over pairs of views and images; computed in float32 (float64 stays).

        Args:
            projections: One tensor [B, D] a view, m ≥ 2 of them, unnormalised.
            positive_views: The first of the views, at least 2, one of which each pair has; all of them where None.

        Returns:
            A scalar.

        Raises:
            ValueError: If there are too few views, or fewer negatives than `num_negatives`.
        """
        positive_views = check_views(projections, positive_views)
        with torch.autocast(projections[0].device.type, enabled=False):
            embeddings = embed(projections, stop_gradient=self.stop_gradient)
            batch = embeddings.others.shape[1]
            check_negatives(self.num_negatives or 1, self.available_negatives(batch, embeddings.views), batch)
            losses = []
            for view in range(embeddings.views):
                negatives = negative_similarities(embeddings, view, slice(None))
                if self.num_negatives is not None:
                    negatives = strongest(negatives, self.num_negatives)
                against = (negatives / self.temperature).logsumexp(dim=1, keepdim=True)
                # A global anchor is paired with every other view, a local one with the global views.
                partners = embeddings.views if view < positive_views else positive_views
                positives = positive_similarities(embeddings, view, partners) / self.temperature
                losses.append(F.softplus(against - positives))  # -log (e^p / (e^p + e^against))
            return torch.cat([loss.flatten() for loss in losses]).mean()
