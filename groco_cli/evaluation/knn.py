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
from groco_cli.evaluation.index import Index, IndexOptions, open_index
from groco_cli.evaluation.index.blocks import blocks, feature_blocks
from groco_cli.evaluation.index.torch_index import TorchIndex

TEMPERATURE = 0.07
KS = (1, 10, 20)
_BLOCK = 4096  # queries whose votes are counted together
_RECALLED = 1000  # queries that an inexact search is checked on


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


@dataclass(frozen=True)
class Neighbours:
    """The nearest of a bank to each query.

    Args:
        similarities: Cosines, nearest first, float32 [q, k].
        rows: Which of the bank they are, int64 [q, k].
        backend: What searched.
        recall: Share of the true neighbours that are among these, measured on up to 1,000 queries; None where the
            search was exact.
    """

    similarities: Tensor
    rows: Tensor
    backend: str
    recall: float | None = None


def find_neighbours(
    bank: Tensor, queries: Tensor | None, k: int, *, device: torch.device, options: IndexOptions | None = None
) -> Neighbours:
    """Search a bank by cosine similarity.

    Args:
        bank: Features [n, D], not normalised.
        queries: Features [q, D]; None to take each of the bank as a query to all the others (leave-one-out).
        k: Number of neighbours, at most n (n - 1 for leave-one-out).
        device: Where to search.
        options: How to search; None for exactly.

    Raises:
        GrocoError: If the features differ in length, or one is not finite.
        UsageError: For options that this machine or bank cannot serve.
    """
    _check_features(bank, bank if queries is None else queries)
    index = open_index(bank, k + (queries is None), options=options, device=device)
    everything = torch.arange(len(bank if queries is None else queries))
    similarities, rows = _search(index, bank, queries, everything, k)
    if index.exact:
        return Neighbours(similarities, rows, index.backend)
    count = min(_RECALLED, len(rows))
    sample = torch.arange(count) * len(rows) // count  # evenly
    _, true = _search(TorchIndex(bank, device=torch.device("cpu")), bank, queries, sample, k)
    found = sum(int(torch.isin(one, other).sum()) for one, other in zip(true, rows[sample], strict=True))
    recall = found / true.numel()
    backend = f"{index.backend}; recall@{k} {100 * recall:.2f} % ({count:,} queries)"
    return Neighbours(similarities, rows, backend, recall)


def _search(index: Index, bank: Tensor, queries: Tensor | None, asked: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest to some of the queries, by number, int64 [a]; without queries, some of the bank to all others."""
    whole = bank if queries is None else queries
    vectors = whole if len(asked) == len(whole) else whole[asked]
    if queries is not None:
        return index.search(vectors, k)
    similarities, rows = index.search(vectors, k + 1)
    # The image itself goes last; where copies of it pushed it out already, the last neighbour goes instead.
    others = (rows == asked[:, None]).int().argsort(dim=1, stable=True)[:, :-1]
    others = others.sort(dim=1).values
    return similarities.gather(1, others), rows.gather(1, others)


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


def _check_features(bank: Tensor, queries: Tensor) -> None:
    if bank.shape[1] != queries.shape[1]:
        raise GrocoError(
            f"the bank has features of length {bank.shape[1]}, the queries of {queries.shape[1]}",
            "take both from the same encoder",
        )
    for name, features in (("bank", bank), ("queries", queries)):
        if not all(features[block].isfinite().all() for block in feature_blocks(features)):
            raise GrocoError(f"a feature of the {name} is not finite", "the encoder is damaged or diverged")


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
