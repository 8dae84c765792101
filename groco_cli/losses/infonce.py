"""InfoNCE over two or more views: the loss of SimCLR (van den Oord et al., 2018; Chen et al., 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.losses.base import ViewLoss
from groco_cli.losses.embeddings import Embeddings
from groco_cli.losses.negatives import negative_similarities, positive_similarities, strongest_negatives


class InfoNCELoss(ViewLoss):
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
        super().__init__(num_negatives, stop_gradient)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature

    def compare(self, embeddings: Embeddings, positive_views: int) -> Tensor:
        """The mean over pairs of views, in both directions, and images."""
        losses = []
        for view in range(embeddings.views):
            if self.num_negatives is None:
                negatives = negative_similarities(embeddings, view)
            else:
                negatives = strongest_negatives(embeddings, view, self.num_negatives)
            against = (negatives / self.temperature).logsumexp(dim=1, keepdim=True)
            # A global anchor is paired with every other view, a local one with the global views.
            partners = embeddings.views if view < positive_views else positive_views
            positives = positive_similarities(embeddings, view, partners) / self.temperature
            losses.append(F.softplus(against - positives))  # -log (e^p / (e^p + e^against))
        return torch.cat([loss.flatten() for loss in losses]).mean()
