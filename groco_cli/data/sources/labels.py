"""From the labels that a set gives, numbers or names, to numbers that all its parts share."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groco_cli.data.sources.base import Source
from groco_cli.errors import GrocoError

NO_NUMBER, NO_NAME = -1, ""
MOST_CLASSES = 1_000_000  # a larger number is an identity, not a class
Labels = tuple[Tensor | None, tuple[str, ...]]
"""Labels int64 [n], or None where there are none, and the classes' names in their order."""

_AnySource = TypeVar("_AnySource", bound=Source)


def number_classes(
    numbers: NDArray[np.int64], names: NDArray[np.str_], *, data: object, name_of: Callable[[int], str]
) -> Labels:
    """Give every image the number of its class.

    Numbers are taken as they stand, and name their class where no name comes with them. Names alone are numbered in
    sorted order.

    Args:
        numbers: [n], each at least 0; NO_NUMBER where none is given.
        names: [n]; NO_NAME where none is given.
        data: What `--data` said.
        name_of: What to call an image.

    Raises:
        GrocoError: If some images have a label and others none, some a number and others only a name, a number is
            beyond reason, or a number goes by two names.
    """
    numbered, named = numbers != NO_NUMBER, names != NO_NAME
    labelled = numbered | named
    if not labelled.any():
        return None, ()
    if not labelled.all():
        raise GrocoError(
            f"{data}: {_listed(~labelled, name_of)} of {len(labelled):,} have no label",
            "label all of them, or none",
        )
    if not numbered.any():
        classes, labels = np.unique(names, return_inverse=True)
        return torch.from_numpy(labels.astype(np.int64)), tuple(classes.tolist())
    if not numbered.all():
        raise GrocoError(
            f"{data}: {_listed(~numbered, name_of)} have a class name, the others a number",
            "give all of them numbers, or all names",
        )
    if numbers.max() >= MOST_CLASSES:
        raise GrocoError(
            f"{data}: {_listed(numbers >= MOST_CLASSES, name_of)} have a label of a million or more",
            "number the classes from 0",
        )
    return torch.from_numpy(numbers.astype(np.int64)), _names_of(numbers, names, data)


def aligned(queries: _AnySource, bank: Source, data: object) -> _AnySource:
    """The queries with the bank's numbering of the classes.

    Args:
        queries: The held-out images.
        bank: The training images.
        data: Where the queries came from.

    Raises:
        GrocoError: If a query's class is not among those of the training images.
    """
    if queries.labels is None or bank.labels is None or queries.classes == bank.classes:
        return queries
    number = {name: i for i, name in enumerate(bank.classes)}
    used = sorted(set(queries.labels.tolist()))
    unknown = [queries.classes[label] for label in used if queries.classes[label] not in number]
    if unknown:
        raise GrocoError(
            f"{data}: class{'es' * (len(unknown) > 1)} {', '.join(unknown[:5])} not among those of the training images",
            "give both parts the same classes",
        )
    renumbered = torch.tensor([number.get(name, -1) for name in queries.classes])[queries.labels]
    return dataclasses.replace(queries, labels=renumbered, classes=bank.classes)  # type: ignore[type-var]


def _names_of(numbers: NDArray[np.int64], names: NDArray[np.str_], data: object) -> tuple[str, ...]:
    """The classes' names: those that came with the numbers, else the numbers themselves."""
    named = names != NO_NAME
    given: dict[int, str] = {}
    for number, name in dict.fromkeys(zip(numbers[named].tolist(), names[named].tolist(), strict=True)):
        if given.setdefault(number, name) != name:
            raise GrocoError(
                f"{data}: class {number} is called both {given[number]} and {name}", "give each its own number"
            )
    return tuple(given.get(number, str(number)) for number in range(int(numbers.max()) + 1))


def _listed(chosen: NDArray[np.bool_], name_of: Callable[[int], str]) -> str:
    """How many images, and the first of them by name."""
    indices = np.flatnonzero(chosen)
    shown = ", ".join(name_of(int(i)) for i in indices[:3])
    return f"{len(indices):,} ({shown}{', …' * (len(indices) > 3)})"
