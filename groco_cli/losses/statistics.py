"""What a curve shows besides the loss: how similar positives and strongest negatives are."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.losses.negatives import positive_similarities, strongest_negatives


@torch.no_grad()
def similarity_statistics(
    projections: Sequence[Tensor], positive_views: int, num_negatives: int
) -> tuple[Tensor, Tensor]:
    """Mean cosine similarity of the first view to its positives, and to the strongest negatives.

    Args:
        projections: One tensor [B, D] a view, unnormalised.
        positive_views: The first of the views that serve as positives.
        num_negatives: N; as many as there are where that is less.

    Returns:
        Two scalars, left on their device.
    """
    embeddings = F.normalize(torch.stack(tuple(projections)).float(), dim=-1)
    views, batch, _ = embeddings.shape
    positives = positive_similarities(embeddings[0], embeddings, 0, positive_views)
    negatives = strongest_negatives(embeddings[0], embeddings, min(num_negatives, views * (batch - 1)))
    return positives.mean(), negatives.mean()
