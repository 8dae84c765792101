"""What every loss over views has in common: how it is called, and what it refuses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groco_cli.losses.embeddings import Embeddings, embed


class ViewLoss(nn.Module, ABC):
    """A loss that compares each view of each image, as an anchor, with other views and other images.

    Args:
        num_negatives: N, the strongest negatives that are kept for each anchor; None for all.
        stop_gradient: Compare each anchor with constants: d(anchor, stop_grad(other)) (section 4.1).

    Raises:
        ValueError: For fewer than one negative.
    """

    def __init__(self, num_negatives: int | None, stop_gradient: bool) -> None:
        super().__init__()
        if num_negatives is not None and num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, not {num_negatives}")
        self.num_negatives = num_negatives
        self.stop_gradient = stop_gradient

    def extra_repr(self) -> str:
        """The loss's settings, for its name on the screen."""
        return ", ".join(f"{k}={v}" for k, v in vars(self).items() if not k.startswith("_") and k != "training")

    def available_negatives(self, batch: int, views: int) -> int:
        """How many negatives an anchor has in a batch of B images with m views each."""
        return views * (batch - 1)

    def forward(
        self,
        projections: Sequence[Tensor],
        positive_views: int | None = None,
        targets: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The loss, averaged over this process's anchors; computed in float32 (float64 stays).

        Args:
            projections: One tensor [B, D] a view, m ≥ 2 of them, unnormalised; gathered across processes here.
            positive_views: The first of the views that serve as positives, at least 2 (multi-crop: the global ones,
                for local anchors too); all of them where None.
            targets: What the anchors are compared with instead of each other, one tensor [B, D] a view (MoCo v3: the
                momentum encoder's projections).

        Returns:
            A scalar.

        Raises:
            ValueError: If there are too few views, not as many targets, or fewer negatives than `num_negatives`.
        """
        views = len(projections)
        positive_views = views if positive_views is None else positive_views
        if not 2 <= positive_views <= views:
            raise ValueError(f"{positive_views} of {views} views as positives; there must be at least 2")
        if targets is not None and len(targets) != views:
            raise ValueError(f"{len(targets)} targets for {views} views; there must be one per view")
        with torch.autocast(projections[0].device.type, enabled=False):
            embeddings = embed(projections, targets, stop_gradient=self.stop_gradient)
            batch = embeddings.others.shape[1]
            available = self.available_negatives(batch, views)
            if (self.num_negatives or 1) > available:
                raise ValueError(
                    f"num_negatives is {self.num_negatives or 'all'}, but an anchor has only {available} negatives in "
                    f"a batch of {batch} images"
                )
            return self.compare(embeddings, positive_views)

    @abstractmethod
    def compare(self, embeddings: Embeddings, positive_views: int) -> Tensor:
        """The loss of unit embeddings, a scalar; what a loss has of its own."""
