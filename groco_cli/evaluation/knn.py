"""The weighted k-NN classifier (section 4.2; Wu et al., 2018; the protocol of DINO and SwAV).

Each of the k nearest training images votes for its class with the weight exp(cos / T); the classes are ranked by the
sum of their votes, the lower number first where they are equal. A class without a vote is never among the first five.
At T = inf all votes weigh the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.index import IndexOptions
from groco_cli.evaluation.index.blocks import blocks
from groco_cli.evaluation.neighbours import Neighbours, find_neighbours

TEMPERATURE = 0.07
KS = (1, 10, 20)
_QUERIES, _VOTES = 4096, 2**24  # that are counted together at most


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
        train_labels: Whole numbers from 0 on, [n]; not every number need occur.
        test_features: The queries, [q, D].
        test_labels: Likewise, [q].
        ks: Numbers of neighbours.
        temperature: T of the votes' weights exp(cos / T).
        device: Where to search.
        options: How to search; None for exactly.

    Returns:
        A score for each k.

    Raises:
        UsageError: For a k below 1 or above the size of the bank, or a temperature that is not positive.
        GrocoError: If features and labels do not fit together, there are none, or a feature is not finite.
    """
    _check_examples("bank", train_features, train_labels)
    _check_examples("queries", test_features, test_labels)
    check_votes(ks, temperature, len(train_features))
    given = train_features, train_labels, test_features, test_labels
    bank, of_bank, queries, truth = (tensor.detach().cpu() for tensor in given)
    neighbours = find_neighbours(bank, queries, max(ks), device=torch.device(device), options=options)
    return score_neighbours(neighbours, of_bank, truth, ks=ks, temperature=temperature)


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
    known, labels = _without_gaps(torch.cat([train_labels, test_labels]))
    of_bank, truth = labels[: len(train_labels)], labels[len(train_labels) :]
    for k in ks:
        ranks = torch.cat(
            [
                _rank_of_truth(_votes(neighbours, block, of_bank, k, temperature, len(known)), truth[block])
                for block in _query_blocks(total, len(known))
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
    known, of_bank = _without_gaps(train_labels)
    first = torch.cat(
        [
            _votes(neighbours, block, of_bank, k, temperature, len(known)).argmax(dim=1)  # of equals, the first
            for block in _query_blocks(len(neighbours.rows), len(known))
        ]
    )
    return known[first]


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


def _check_examples(part: str, features: Tensor, labels: Tensor) -> None:
    """Check that there are features and as many labels, in the bank or among the queries."""
    for what, given in (("features", features), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise GrocoError(
                f"the {what} of the {part} are no tensor but {type(given).__name__}", "give a torch.Tensor"
            )
    if features.ndim != 2 or not features.numel():
        raise GrocoError(
            f"the features of the {part} are of shape {tuple(features.shape)}", "give [images, numbers], none of them 0"
        )
    if labels.shape != features.shape[:1]:
        raise GrocoError(
            f"the features of the {part} are of shape {tuple(features.shape)}, their labels of {tuple(labels.shape)}",
            "give each image one label",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.min() < 0:
        raise GrocoError(f"a label of the {part} is no whole number from 0 on", "number the classes 0, 1, 2, …")


def _without_gaps(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that occur, in order, and which of them each label is: votes take room for these alone."""
    found: tuple[Tensor, Tensor] = torch.unique(labels, return_inverse=True)
    return found


def _query_blocks(queries: int, classes: int) -> list[slice]:
    """The queries, in blocks whose votes take little memory however many classes there are."""
    return blocks(queries, max(1, min(_QUERIES, _VOTES // classes)))


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
