"""The nearest of a bank to each query, by cosine similarity: by one process, or by all of them together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation.index import Index, IndexOptions, choose_library, open_index
from groco_cli.evaluation.index.blocks import feature_blocks
from groco_cli.evaluation.index.torch_index import TorchIndex

_RECALLED = 1000  # queries that an inexact search is checked on


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
    with collectives.alone():
        return find_together(bank, queries, k, device=device, options=options)


def find_together(
    bank: Tensor, queries: Tensor | None, k: int, *, device: torch.device, options: IndexOptions | None = None
) -> Neighbours:
    """As `find_neighbours`, for all processes: each searches for its part of the queries, all are given the result.

    A bank that is spread over several GPUs is searched by the first process alone.

    Args:
        bank: The same in every process, as are queries, k and options.
        queries: As for `find_neighbours`.
        k: As for `find_neighbours`.
        device: Where this process searches.
        options: How to search; None for exactly.

    Raises:
        GrocoError: If the search fails in any of them, in all of them.
        UsageError: Likewise, by a process alone.
    """
    if collectives.world_size() > 1 and _by_the_first(options):
        found: Neighbours | None = None
        with collectives.failing_together():
            if not collectives.rank():
                found = find_neighbours(bank, queries, k, device=device, options=options)
        found = collectives.from_first(found)
        assert found is not None
        return found
    vectors = bank if queries is None else queries
    total, own = len(vectors), collectives.share_of(len(vectors))
    with collectives.failing_together():
        _check_features(bank, vectors)
        index = open_index(bank, k + (queries is None), options=options, device=device)
        of_bank = torch.arange(own.start, own.stop) if queries is None else None
        parts = _search(index, vectors[own.start : own.stop], of_bank, k)
    similarities, rows = (collectives.all_rows(part, total, device) for part in parts)
    backend = "; ".join(dict.fromkeys(collectives.from_all(index.backend)))
    if index.exact:
        return Neighbours(similarities, rows, backend)
    count = min(_RECALLED, total)
    sample = torch.arange(count) * total // count  # evenly
    memory = (options or IndexOptions()).memory
    recall = _recall(bank, queries, rows, sample, device, memory)
    return Neighbours(similarities, rows, f"{backend}; recall@{k} {100 * recall:.2f} % ({count:,} queries)", recall)


def check_search(options: IndexOptions | None, k: int, *, device: torch.device) -> None:
    """Tell before any work what cannot be searched, in all processes.

    Args:
        options: How to search; None for exactly.
        k: Number of neighbours; one more for leave-one-out.
        device: Where this process would search.

    Raises:
        UsageError: For options that this machine cannot serve.
    """
    with collectives.failing_together():
        if not (collectives.rank() and _by_the_first(options)):
            choose_library(options or IndexOptions(), k, device=device)


def _by_the_first(options: IndexOptions | None) -> bool:
    return options is not None and options.gpus > 1


def _search(index: Index, vectors: Tensor, own: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest to some vectors; to all others, where these are of the bank and `own` are their rows, int64 [a]."""
    if own is None:
        return index.search(vectors, k)
    similarities, rows = index.search(vectors, k + 1)
    # The image itself goes last; where copies of it pushed it out already, the last neighbour goes instead.
    others = (rows == own[:, None]).int().argsort(dim=1, stable=True)[:, :-1]
    others = others.sort(dim=1).values
    return similarities.gather(1, others), rows.gather(1, others)


def _recall(
    bank: Tensor, queries: Tensor | None, rows: Tensor, sample: Tensor, device: torch.device, memory: int
) -> float:
    """Share of the true neighbours of some queries that are among those found, int64 [q, k]."""
    own = collectives.share_of(len(sample))
    sample = sample[own.start : own.stop]
    exact = TorchIndex(bank, device=torch.device("cpu"), memory=memory)
    vectors = bank if queries is None else queries
    _, true = _search(exact, vectors[sample], sample if queries is None else None, rows.shape[1])
    found = sum(int(torch.isin(one, other).sum()) for one, other in zip(true, rows[sample], strict=True))
    both = collectives.sum_over(torch.tensor([found, true.numel()], device=device))
    return int(both[0]) / int(both[1])


def _check_features(bank: Tensor, queries: Tensor) -> None:
    if bank.shape[1] != queries.shape[1]:
        raise GrocoError(
            f"the bank has features of length {bank.shape[1]}, the queries of {queries.shape[1]}",
            "take both from the same encoder",
        )
    for name, features in (("bank", bank), ("queries", queries)):
        if not all(features[block].isfinite().all() for block in feature_blocks(features)):
            raise GrocoError(f"a feature of the {name} is not finite", "the encoder is damaged or diverged")
