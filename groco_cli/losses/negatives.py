"""Which embeddings an anchor is compared with: its positives, and the strongest of its negatives (section 4.1)."""

import torch
from torch import Tensor

from groco_cli.losses.embeddings import Embeddings

EVERY = slice(None)
BUDGET = 2**27  # bytes of similarities at a time: the 1,024 images of two views that the paper trains with need 8 MB


def positive_similarities(embeddings: Embeddings, view: int, positive_views: int) -> Tensor:
    """Similarities of one view's anchors to the other views of the same image.

    Args:
        embeddings: Anchors and others.
        view: Which of the m views the anchors are.
        positive_views: How many of the first views serve as positives.

    Returns:
        [B, K], in the order of the views; K is `positive_views`, less one where the anchors are among them.
    """
    own = embeddings.own.unbind()  # an index made of a list would be copied to a GPU, and wait for it
    partners = torch.stack([own[v] for v in range(positive_views) if v != view])
    return torch.einsum("bd,kbd->bk", embeddings.anchors[view], partners)


def negative_similarities(
    embeddings: Embeddings, view: int, candidates: slice = EVERY, images: slice = EVERY
) -> Tensor:
    """Similarities of one view's anchors to the views of all other images.

    Args:
        embeddings: Anchors and others.
        view: Which of the m views the anchors are.
        candidates: Which v of the views to look at.
        images: Which of this process's images are anchors.

    Returns:
        [B, v·B·world], -inf where both are of one image.
    """
    anchors, others = embeddings.anchors[view, images], embeddings.others[candidates]
    views, every_image, _ = others.shape
    own = torch.arange(embeddings.anchors.shape[1], device=anchors.device)[images] + embeddings.offset
    same = own[:, None] == torch.arange(every_image, device=anchors.device)
    return (anchors @ others.flatten(0, 1).T).masked_fill(same.repeat(1, views), -torch.inf)


def strongest_negatives(
    embeddings: Embeddings,
    view: int,
    count: int,
    candidates: slice = EVERY,
    *,
    in_batch_order: bool = False,
    budget: int = BUDGET,
) -> Tensor:
    """The largest similarities of one view's anchors to views of other images.

    Where the matrix of all similarities would be larger than the budget, the strongest are found block by block of the
    anchors, and only theirs are computed again for the gradient. Of equal ones the first candidates are taken, on every
    device and in blocks of any size.

    Args:
        embeddings: Anchors and others.
        view: Which of the m views the anchors are.
        count: How many to keep, N.
        candidates: Which of the views to look at.
        in_batch_order: Leave them in the order of the candidates, unrelated to their size (Table 8b); else descending.
        budget: Bytes of similarities that may exist at a time.

    Returns:
        [B, N].
    """
    anchors, others = embeddings.anchors[view], embeddings.others[candidates].flatten(0, 1)
    bytes_an_anchor = len(others) * anchors.element_size()
    rows = max(1, budget // bytes_an_anchor)
    if len(anchors) <= rows:
        similarities = negative_similarities(embeddings, view, candidates)
        return similarities.gather(1, _places(similarities.detach(), count, in_batch_order))
    with torch.no_grad():
        blocks = (slice(start, start + rows) for start in range(0, len(anchors), rows))
        places = torch.cat(
            [
                _places(negative_similarities(embeddings, view, candidates, block), count, in_batch_order)
                for block in blocks
            ]
        )
    return torch.einsum("bd,bnd->bn", anchors, others[places])


def _places(similarities: Tensor, count: int, in_batch_order: bool) -> Tensor:
    """Where each row's largest are, [B, count]; of equal ones those that come first, in that order."""
    top = similarities.topk(min(count + 1, similarities.shape[1]), dim=1)
    places, least = top.indices[:, :count], top.values[:, count - 1 : count]
    # `topk` takes any of those equal to the last one in. To ask a GPU whether there are some would make it wait.
    if similarities.is_cuda or (top.values[:, count:] == least).any():
        places = _first_places(similarities, least, count)
    places = places.sort(dim=1).values
    if in_batch_order:
        return places
    order = similarities.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)


def _first_places(similarities: Tensor, least: Tensor, count: int) -> Tensor:
    """The places of all above `least`, and of the first of those equal to it: `count` in each row."""
    above, equal = ~(similarities <= least), similarities == least  # NaN counts as above, as for `topk`
    room = count - above.sum(dim=1, keepdim=True)
    taken = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    backwards = torch.arange(similarities.shape[1], 0, -1, device=similarities.device, dtype=torch.int32)
    return (taken * backwards).topk(count, dim=1).indices
