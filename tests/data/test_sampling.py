"""The order of an epoch: everything once, the same for the same seed, and with class-mates where asked."""

import numpy as np
import pytest
import torch

from groco_cli.data.sampling import shuffled, with_class_mates
from groco_cli.errors import UsageError


def mates_met(order: np.ndarray, labels: np.ndarray, batch: int) -> float:
    """How many of its class an image meets in its batch, on average: counted one by one."""
    met = []
    for start in range(0, len(order) - batch + 1, batch):
        classes = labels[order[start : start + batch]]
        met += [(classes == label).sum() - 1 for label in classes]
    return float(np.mean(met))


def test_every_epoch_has_every_image_once_in_an_order_of_its_own():
    order = shuffled(100, seed=1)
    assert sorted(order(0)) == list(range(100))
    assert order(0).tolist() == shuffled(100, seed=1)(0).tolist()
    assert order(0).tolist() != order(1).tolist() != shuffled(100, seed=2)(1).tolist()


@pytest.mark.parametrize(
    ("classes", "batch", "mates"), [(1000, 1024, 3.0), (1000, 64, 3.0), (100, 64, 1.5), (50, 64, 5.0)]
)
def test_an_image_meets_as_many_of_its_class_as_asked_on_average(classes, batch, mates):
    """1,000 classes in batches of 1,024 are the paper's; chance alone brings together one of a class there."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=40_000)
    order = with_class_mates(torch.from_numpy(labels), mates, batch, seed=0)
    met = [mates_met(order(epoch), labels, batch) for epoch in range(2)]
    assert np.mean(met) == pytest.approx(mates, rel=0.04)
    assert sorted(order(0)) == list(range(len(labels)))
    assert order(0).tolist() == with_class_mates(torch.from_numpy(labels), mates, batch, seed=0)(0).tolist()
    assert order(0).tolist() != order(1).tolist()
    assert abs(mates_met(shuffled(len(labels), 0)(0), labels, batch) - mates) > 0.4


def test_more_than_chance_brings_or_a_class_holds_is_refused():
    labels = torch.arange(1000) % 10
    with pytest.raises(UsageError, match=r"meets 12\.7 of its class by chance") as by_chance:
        with_class_mates(labels, 3, 128, seed=0)
    assert by_chance.value.hint == "type --class-mates 13.7 or a smaller --batch-size"
    assert with_class_mates(labels, 13.7, 128, seed=0)(0).shape == (1000,)
    with pytest.raises(UsageError, match="no class has so many") as too_many:
        with_class_mates(torch.arange(1000) % 500, 3, 8, seed=0)
    assert too_many.value.hint == "type 1 or less"
    assert with_class_mates(torch.arange(1000) % 500, 1.0, 8, seed=0)(0).shape == (1000,)
    with pytest.raises(UsageError, match="by chance"):
        with_class_mates(torch.zeros(10, dtype=torch.int64), 3, 4, seed=0)
