"""In which order an epoch shows its images; a pure function of the seed and the epoch."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groco_cli.errors import UsageError

Order = Callable[[int], NDArray[np.int64]]
"""From the number of an epoch to the numbers of its images, each once."""


def shuffled(count: int, seed: int) -> Order:
    """All images, shuffled anew each epoch.

    Args:
        count: Number of images.
        seed: The run's.
    """
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(count)


def with_class_mates(labels: Tensor, mates: float, batch_size: int, seed: int) -> Order:
    """All images, so ordered that each has on average so many more of its class in its batch (Table 8d).

    The images of a class are shuffled and cut into groups, the groups shuffled. Chance alone brings together some of a
    class; the groups are as large as it takes to make up the rest. With q the probability that two images are of one
    class, an image in a group of s meets s - 1 there and q (B - s) among the others.

    Args:
        labels: Numbers of the classes, int64 [n].
        mates: Images of its own class that an image meets in its batch; 3 in the paper.
        batch_size: B.
        seed: The run's.

    Raises:
        UsageError: If chance alone brings together more than that, or no class has as many.
    """
    classes = labels.numpy()
    counts = np.bincount(classes)
    by_chance = float(((counts / len(classes)) ** 2).sum())
    group = (mates + 1 - by_chance * batch_size) / (1 - by_chance) if by_chance < 1 else 0.0
    if group < 1:
        raise UsageError(
            f"--class-mates {mates:g}: in a batch of {batch_size} an image meets "
            f"{by_chance * (batch_size - 1):.1f} of its class by chance",
            f"type --class-mates {by_chance * (batch_size - 1) + 1:.1f} or a smaller --batch-size",
        )
    if group > counts.max():
        most = counts.max() * (1 - by_chance) + by_chance * batch_size - 1
        raise UsageError(
            f"--class-mates {mates:g}: no class has so many images", f"type {math.floor(10 * most) / 10:g} or less"
        )
    return lambda epoch: _grouped(classes, group, np.random.default_rng([seed, epoch]))


def _grouped(classes: NDArray[np.int64], group: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Shuffled groups of one class; an image's group has `group` images on average."""
    shuffled_once = random.permutation(len(classes))
    by_class = shuffled_once[np.argsort(classes[shuffled_once], kind="stable")]
    groups: list[NDArray[np.int64]] = []
    for members in np.split(by_class, np.cumsum(np.bincount(classes))[:-1]):
        if len(members):
            groups += np.array_split(members, _group_count(len(members), group, random.random()))
    return np.concatenate([groups[i] for i in random.permutation(len(groups))])


def _group_count(members: int, group: float, draw: float) -> int:
    """Into how many even groups to cut a class: of the two numbers nearest, each as often as makes the mean right."""
    few = max(1, int(members / group))
    large, small = _mean_group(members, few), _mean_group(members, few + 1)
    return few if few == members or draw < (group - small) / (large - small) else few + 1


def _mean_group(members: int, count: int) -> float:
    """The size of an image's group, averaged over the images, where a class is cut evenly."""
    size, larger = divmod(members, count)
    return ((count - larger) * size**2 + larger * (size + 1) ** 2) / members
