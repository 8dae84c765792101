"""k-NN on pictures that show several classes, and the two measures of it that are given for VOC2007.

Each neighbour votes for all classes that it shows. The classification task of VOC2007 ranks all test pictures for each
class and takes the mean, over 11 levels of recall, of the highest precision at that recall or more (Everingham et al.,
2010, section 4.2); pictures that show a class in difficult objects alone are left out of its ranking (VOCevalcls.m).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from groco_cli.evaluation.neighbours import Neighbours


@dataclass(frozen=True, kw_only=True)
class MultiLabelScore:
    """How well pictures were given their classes.

    Args:
        mean_ap: Mean of the classes' 11-point average precisions, in [0, 1].
        hit_rate: Share of pictures whose first-ranked class they show, in difficult objects or not.
        absent: Classes that no test picture shows, which have no average precision.
    """

    mean_ap: float
    hit_rate: float
    absent: tuple[int, ...]


def log_votes(neighbours: Neighbours, shown: Tensor, *, k: int, temperature: float) -> Tensor:
    """The logarithm of the sum of exp(cos / T) over the neighbours that show a class: it ranks as the sum does.

    Args:
        neighbours: At least k of each query.
        shown: Which classes the bank's pictures show, bool [n, classes].
        k: Number of neighbours.
        temperature: T of the votes' weights.

    Returns:
        float64 [q, classes]; minus infinity where no neighbour votes for a class.
    """
    logits = neighbours.similarities[:, :k].double() / temperature  # [q, k]
    voted = shown[neighbours.rows[:, :k]]  # [q, k, classes]
    return logits[:, :, None].masked_fill(~voted, -torch.inf).logsumexp(dim=1)


def score_votes(votes: Tensor, shown: Tensor, difficult: Tensor) -> MultiLabelScore:
    """Score the votes for each class against what the queries show.

    Args:
        votes: [q, classes]; minus infinity where there is none.
        shown: Classes plainly shown, bool [q, classes].
        difficult: Classes shown in difficult objects alone, bool [q, classes].
    """
    present = shown.any(dim=0)
    precisions = [
        average_precision(votes[:, label], shown[:, label], difficult[:, label])
        for label in present.nonzero()[:, 0].tolist()
    ]
    best, first = votes.max(dim=1)
    hit = (shown | difficult).gather(1, first[:, None])[:, 0] & (best > -torch.inf)
    return MultiLabelScore(
        mean_ap=sum(precisions) / len(precisions),
        hit_rate=float(hit.double().mean()),
        absent=tuple((~present).nonzero()[:, 0].tolist()),
    )


def average_precision(scores: Tensor, shown: Tensor, ignored: Tensor) -> float:
    """11-point interpolated average precision of one class; equal scores are ranked in the order given.

    Args:
        scores: Of each picture, [n].
        shown: Whether it shows the class, bool [n]; at least one does.
        ignored: Whether it is left out, bool [n].
    """
    order = scores.argsort(descending=True, stable=True)
    right = shown[order][~ignored[order]]
    found = right.cumsum(dim=0)
    precision = found.double() / torch.arange(1, len(right) + 1)
    # In whole numbers, for 3 of 10 is a recall of 0.3, whatever three times 0.1 may be.
    levels = [precision[10 * found >= tenths * found[-1]].max() for tenths in range(11)]
    return float(torch.stack(levels).mean())
