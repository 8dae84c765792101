"""Which embeddings an anchor is compared with: its positives, and the strongest of its negatives (section 4.1)."""

import torch
from torch import Tensor

from groco_cli.losses.embeddings import Embeddings


def positive_similarities(embeddings: Embeddings, view: int, positive_views: int) -> Tensor:
    """Similarities of one view's anchors to the other views of the same image.

    Args:
        embeddings: Anchors and others.
        view: Which of the m views the anchors are.
        positive_views: How many of the first views serve as positives.

    Returns:
        [B, K], in the order of the views; K is `positive_views`, less one where the anchors are among them.
    """
    partners = [v for v in range(positive_views) if v != view]
    return torch.einsum("bd,kbd->bk", embeddings.anchors[view], embeddings.own[partners])


def negative_similarities(embeddings: Embeddings, view: int, candidates: slice) -> Tensor:
    """Similarities of one view's anchors to the views of all other images.

    Args:
        embeddings: Anchors and others.
        view: Which of the m views the anchors are.
        candidates: Which v of the views to look at.

    Returns:
        [B, v·B·world], -inf where both are of one image.
    """
    anchors, others = embeddings.anchors[view], embeddings.others[candidates]
    views, images, _ = others.shape
    numbers = torch.arange(images, device=anchors.device)
    own = (numbers - embeddings.offset == numbers[: len(anchors), None]).repeat(1, views)
    return (anchors @ others.flatten(0, 1).T).masked_fill(own, -torch.inf)


def strongest(similarities: Tensor, count: int, *, in_batch_order: bool = False) -> Tensor:
    """The largest similarities of each anchor.

    Args:
        similarities: [B, candidates].
        count: How many to keep, N.
        in_batch_order: Leave them in the order of the candidates, unrelated to their size (Table 8b); else descending.

    Returns:
        [B, N].
    """
    if not in_batch_order:
        return similarities.topk(count, dim=1).values
    return similarities.gather(1, similarities.detach().topk(count, dim=1).indices.sort(dim=1).values)
