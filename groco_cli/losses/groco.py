"""The GroCo loss: the group of positives must come before the group of negatives (section 3.3.2, Eq. 1–6).

Eq. 6 sums two binary cross-entropies over the elements, one of their mass in the positive places against "is a
positive", one of their mass in the negative places against "is a negative". An element's two masses sum to one, so
the two terms are equal, and with `mass` the column sums over the first K rows of P

    L = 1/(K+N) Σᵢ BCE(massᵢ, 1[i ≤ K]).

Paper and released code (github.com/ninatu/learning_by_sorting, losses/groco.py) differ in two things:

              negatives of an anchor                     the list that is sorted
    paper     all views of all other images, m·(B−1)     distances, positives then negatives (Eq. 5)
    official  the other images' same-numbered view, B−1  similarities ascending: that list reversed and negated

Both take the odd-even network with Cauchy's relaxation (Eq. 3); any other of `groco_cli.sorting` can take its place.
With an odd-even network, reversing the list changes nothing for an even number of elements; for an odd one the steps
pair other neighbours.
"""

from functools import partial

import torch
from torch import Tensor

from groco_cli.losses.base import ViewLoss
from groco_cli.losses.embeddings import Embeddings
from groco_cli.losses.negatives import EVERY, positive_similarities, strongest_negatives
from groco_cli.sorting import SortingNetwork

VARIANTS = ("paper", "official")


class GroCoLoss(ViewLoss):
    """Group Ordering Constraints: sort each anchor's distances softly, and see who landed in whose places.

    Args:
        num_negatives: N, the strongest negatives that are kept for each anchor.
        beta: Inverse temperature β of the relaxed swaps.
        preorder: Sort positives and negatives among themselves first (Table 8b); otherwise each group keeps the
            order of the views and of the batch.
        stop_gradient: d(anchor, stop_grad(other)), as the paper trains (section 4.1).
        variant: "paper" or "official"; see the module's docstring.
        kind: Of sorting network: "odd_even" (the paper's) or "bitonic"; see `SortingNetwork`.
        relaxation: Of its swaps: "cauchy" (the paper's), "logistic", "logistic_phi", "gaussian", "reciprocal" or
            "optimal".

    Raises:
        ValueError: For an unknown variant, kind or relaxation, a β that is not positive, or fewer than one negative.

    Example:
        >>> import torch
        >>> views = [torch.randn(16, 8), torch.randn(16, 8)]
        >>> loss = GroCoLoss(num_negatives=10)(views)
        >>> loss.shape
        torch.Size([])
    """

    def __init__(
        self,
        num_negatives: int = 10,
        beta: float = 1.0,
        preorder: bool = True,
        stop_gradient: bool = True,
        variant: str = "paper",
        kind: str = "odd_even",
        relaxation: str = "cauchy",
    ) -> None:
        super().__init__(num_negatives, stop_gradient)
        SortingNetwork(2, kind, relaxation, beta)  # which checks them; each list has a network of its own length
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; there are {' and '.join(VARIANTS)}")
        self.num_negatives: int = num_negatives
        self.beta = beta
        self.preorder = preorder
        self.variant = variant
        self.kind = kind
        self.relaxation = relaxation

    def available_negatives(self, batch: int, views: int) -> int:
        """How many negatives an anchor has in a batch of B images with m views each."""
        return (views if self.variant == "paper" else 1) * (batch - 1)

    def compare(self, embeddings: Embeddings, positive_views: int) -> Tensor:
        """Eq. 6, averaged over the anchors."""
        # Global anchors have one positive less than local ones, so each group has a network of its own size.
        groups = (range(positive_views), range(positive_views, embeddings.views))
        losses = [
            self._group_loss(torch.cat([self._distances(embeddings, v, positive_views) for v in group]))
            for group in groups
            if group
        ]
        return torch.cat(losses).mean()

    def _distances(self, embeddings: Embeddings, view: int, positive_views: int) -> Tensor:
        """The list of Eq. 5 for each anchor of a view: cosine distances (-cos), positives first; [B, K+N]."""
        positives = positive_similarities(embeddings, view, positive_views)
        if self.preorder:
            positives = positives.sort(dim=1, descending=True).values
        candidates = EVERY if self.variant == "paper" else slice(view, view + 1)
        negatives = strongest_negatives(
            embeddings, view, self.num_negatives, candidates, in_batch_order=not self.preorder
        )
        return -torch.cat([positives, negatives], dim=1)

    def _group_loss(self, distances: Tensor) -> Tensor:
        num_positives = distances.shape[1] - self.num_negatives
        ordering_loss = partial(group_ordering_loss, beta=self.beta, kind=self.kind, relaxation=self.relaxation)
        if self.variant == "paper":
            return ordering_loss(distances, num_positives)
        # Reversed and negated, the negatives are the group in front: the same loss with the roles exchanged.
        return ordering_loss(-distances.flip(1), self.num_negatives)


def group_ordering_loss(
    values: Tensor, group_size: int, *, beta: float = 1.0, kind: str = "odd_even", relaxation: str = "cauchy"
) -> Tensor:
    """How wrongly each list is ordered, if its first group should come out before the rest (Eq. 6).

    Args:
        values: What is sorted in ascending order, the first group in front, [A, n]; for the paper's loss the distances
            of the positives, then those of the negatives (Eq. 5).
        group_size: How many elements the first group has, K.
        beta: Inverse temperature β.
        kind: Of sorting network; see `SortingNetwork`.
        relaxation: Of its swaps; likewise.

    Returns:
        The loss of each list, [A].
    """
    size = values.shape[1]
    mass = SortingNetwork(size, kind, relaxation, beta).group_mass(values, group_size)
    in_own_group = torch.where(torch.arange(size, device=mass.device) < group_size, mass, 1 - mass)
    # The cross-entropy against 1[i ≤ K]. Rounding can leave a mass a hair outside [0, 1]; NaN stays NaN, where torch's
    # own function would stop the program, on a GPU without a word of why.
    return -in_own_group.clamp(torch.finfo(mass.dtype).tiny, 1).log().mean(dim=1)
