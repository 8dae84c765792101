"""What a curve shows besides the loss: how similar positives and strongest negatives are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from groco_cli.losses.embeddings import embed
from groco_cli.losses.negatives import positive_similarities, strongest_negatives


@torch.no_grad()
def similarity_statistics(
    projections: Sequence[Tensor],
    positive_views: int,
    targets: Sequence[Tensor] | None = None,
    num_negatives: int = 10,
) -> tuple[Tensor, Tensor]:
    """Mean cosine similarity of the first view to its positives, and to the strongest negatives.

    Args:
        projections: One tensor [B, D] a view, unnormalised.
        positive_views: The first of the views that serve as positives.
        targets: What they are compared with; each other where None.
        num_negatives: N; as many as there are where that is less.

    Returns:
        Two scalars, left on their device.
    """
    embeddings = embed(projections, targets, stop_gradient=True)
    available = embeddings.views * (embeddings.others.shape[1] - 1)
    positives = positive_similarities(embeddings, 0, positive_views)
    negatives = strongest_negatives(embeddings, 0, min(num_negatives, available))
    return positives.mean(), negatives.mean()
