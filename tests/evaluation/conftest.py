import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from groco_cli.data.sources import MemorySource
from groco_cli.evaluation.knn import KNNScore


@pytest.fixture
def naive_knn() -> Callable[..., KNNScore]:
    """The k-NN classifier as a double loop in float64; without queries, each of the bank is left out in its turn.

    Of equally near ones those come first that stand first in the bank.
    """

    def classify(
        bank: Tensor, labels: Tensor, queries: Tensor | None, truth: Tensor, k: int, temperature: float
    ) -> KNNScore:
        first = among_five = 0
        asked = bank if queries is None else queries
        for q, query in enumerate(asked.double().tolist()):
            cosines = []
            for row, other in enumerate(bank.double().tolist()):
                if queries is None and row == q:
                    continue
                lengths = math.hypot(*query) * math.hypot(*other)
                cosines.append((sum(a * b for a, b in zip(query, other, strict=True)) / lengths, row))
            votes: dict[int, float] = {}
            for cosine, row in sorted(cosines, key=lambda one: (-one[0], one[1]))[:k]:
                name = int(labels[row])
                votes[name] = votes.get(name, 0.0) + math.exp(cosine / temperature)
            ranked = sorted(votes, key=lambda name: (-votes[name], name))
            first += ranked[0] == int(truth[q])
            among_five += int(truth[q]) in ranked[:5]
        total = len(asked)
        return KNNScore(first / total, among_five / total, first, total)

    return classify


@pytest.fixture
def noise() -> Callable[..., MemorySource]:
    """Pictures of noise in memory, labelled 0, 1, 2, 0, 1, …: `noise(10, size=(32, 32))`."""

    def make(count: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> MemorySource:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (count, 3, *size), dtype=torch.uint8, generator=generator)
        return MemorySource(images, torch.arange(count) % 3, ("a", "b", "c"))

    return make
