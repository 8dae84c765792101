"""Which embeddings an anchor is compared with: its positives, and the strongest of its negatives (section 4.1)."""

import torch
from torch import Tensor


def positive_similarities(anchors: Tensor, others: Tensor, view: int, positive_views: int) -> Tensor:
    """Similarities to the other views of the same image.

    Args:
        anchors: Unit embeddings of one view, [B, D].
        others: Unit embeddings of all views, [m, B, D].
        view: Which of the m views the anchors are.
        positive_views: How many of the first views serve as positives.

    Returns:
        [B, K], in the order of the views; K is `positive_views`, less one where the anchors are among them.
    """
    chosen = [others[v] for v in range(positive_views) if v != view]
    return torch.stack([(anchors * positive).sum(dim=-1) for positive in chosen], dim=1)


def strongest_negatives(anchors: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Similarities to the nearest views of other images.

    Args:
        anchors: Unit embeddings of one view, [B, D].
        candidates: Unit embeddings of the views to choose from, [v, B, D]; the anchor's own image is left out.
        count: How many to keep, N ≤ v·(B-1).

    Returns:
        The N largest similarities of each anchor, descending, [B, N].
    """
    similarities, own = _candidate_similarities(anchors, candidates)
    return similarities.masked_fill(own, -torch.inf).topk(count, dim=1).values


def strongest_negatives_in_batch_order(anchors: Tensor, candidates: Tensor, count: int) -> Tensor:
    """As `strongest_negatives`, in the order of the batch: unrelated to their similarity (Table 8b)."""
    similarities, own = _candidate_similarities(anchors, candidates)
    chosen = similarities.detach().masked_fill(own, -torch.inf).topk(count, dim=1).indices
    return similarities.gather(1, chosen.sort(dim=1).values)


def _candidate_similarities(anchors: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities [B, v·B] and which of them are to the anchor's own image."""
    views, batch, _ = candidates.shape
    own = torch.eye(batch, dtype=torch.bool, device=anchors.device).repeat(1, views)
    return anchors @ candidates.flatten(0, 1).T, own
