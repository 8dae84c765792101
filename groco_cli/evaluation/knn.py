"""The weighted k-NN classifier (section 4.2; Wu et al., 2018; the protocol of DINO and SwAV).

Each of the k nearest training images votes for its class with the weight exp(cos / T); the classes are ranked by the
sum of their votes, the lower number first where they are equal. A class without a vote is never among the first five.
At T = inf all votes weigh the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import IndexOptions
from groco_cli.evaluation.index.blocks import blocks
from groco_cli.evaluation.neighbours import Neighbours, find_neighbours

TEMPERATURE = 0.07
KS = (1, 10, 20)
_BLOCK = 4096  # queries whose votes are counted together


@dataclass(frozen=True)
class KNNScore:
    """How many queries were classified rightly.

    Args:
        top1: Share of queries whose first-ranked class is theirs, in [0, 1].
        top5: Share of queries whose class is among the first five.
        correct: Number of queries whose first-ranked class is theirs.
        total: Number of queries.
    """

    top1: float
    top5: float
    correct: int
    total: int


def knn_classify(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    *,
    device: torch.device | str = "cpu",
    options: IndexOptions | None = None,
) -> dict[int, KNNScore]:
    """Classify every query by its nearest neighbours, by cosine similarity.

    Args:
        train_features: The bank, [n, D]; need not be normalised.
        train_labels: int64 [n].
        test_features: The queries, [q, D].
        test_labels: int64 [q].
        ks: Numbers of neighbours.
        temperature: T of the votes' weights exp(cos / T).
        device: Where to search.
        options: How to search; None for exactly.

    Returns:
        A score for each k.

    Raises:
        UsageError: For a k below 1 or above the size of the bank, or a temperature that is not positive.
        GrocoError: If the features do not fit together, or are not finite.
    """
    check_votes(ks, temperature, len(train_features))
    neighbours = find_neighbours(train_features, test_features, max(ks), device=torch.device(device), options=options)
    return score_neighbours(neighbours, train_labels, test_labels, ks=ks, temperature=temperature)


def score_neighbours(
    neighbours: Neighbours,
    train_labels: Tensor,
    test_labels: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
) -> dict[int, KNNScore]:
    """Count the votes of neighbours that were found already.

    Args:
        neighbours: At least max(ks) of each query.
        train_labels: int64 [n].
        test_labels: int64 [q].
        ks: Numbers of neighbours.
        temperature: T of the votes' weights.
    """
    scores = {}
    total = len(test_labels)
    classes = 1 + int(max(train_labels.max(), test_labels.max()))
    for k in ks:
        ranks = torch.cat(
            [
                _rank_of_truth(_votes(neighbours, block, train_labels, k, temperature, classes), test_labels[block])
                for block in blocks(total, _BLOCK)
            ]
        )
        first, among_five = int((ranks == 0).sum()), int((ranks < 5).sum())
        scores[k] = KNNScore(first / total, among_five / total, first, total)
    return scores


def predict(neighbours: Neighbours, train_labels: Tensor, *, k: int, temperature: float) -> Tensor:
    """The first-ranked class of each query.

    Args:
        neighbours: At least k of each query.
        train_labels: int64 [n].
        k: Number of neighbours.
        temperature: T of the votes' weights.

    Returns:
        int64 [q].
    """
    classes = 1 + int(train_labels.max())
    return torch.cat(
        [
            _votes(neighbours, block, train_labels, k, temperature, classes).argmax(dim=1)  # of equals, the first
            for block in blocks(len(neighbours.rows), _BLOCK)
        ]
    )


def check_votes(ks: Sequence[int], temperature: float, bank: int) -> None:
    """Check the classifier's options against the size of the bank.

    Raises:
        UsageError: For a k below 1 or above `bank`, or a temperature that is not positive.
    """
    if not ks or min(ks) < 1:
        raise UsageError(f"--k {min(ks, default=0)}: at least one neighbour is needed", "type --k 20")
    if max(ks) > bank:
        raise UsageError(f"--k {max(ks)} is more than the {bank} images of the bank", f"type --k {bank} or less")
    if not temperature > 0:
        raise UsageError(f"--temperature {temperature} must be positive", f"type --temperature {TEMPERATURE}")


def _votes(
    neighbours: Neighbours, block: slice, train_labels: Tensor, k: int, temperature: float, classes: int
) -> Tensor:
    """The sum of each class's votes, float64 [block, classes], each query's in units of its nearest one's vote."""
    similarities = neighbours.similarities[block, :k]
    weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(weights), classes, dtype=weights.dtype)
    return votes.scatter_add_(1, train_labels[neighbours.rows[block, :k]], weights)


def _rank_of_truth(votes: Tensor, truth: Tensor) -> Tensor:
    """How many classes are ranked before the true one; all of them where it has no vote.

    Args:
        votes: Of each class, [q, classes].
        truth: True classes, [q].
    """
    classes = votes.shape[1]
    of_truth = votes.gather(1, truth[:, None])
    earlier = (votes == of_truth) & (torch.arange(classes) < truth[:, None])
    rank = ((votes > of_truth) | earlier).sum(dim=1)
    return rank.masked_fill(of_truth[:, 0] == 0, classes + 5)
