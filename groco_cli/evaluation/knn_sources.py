"""Bank and queries of `groco knn`: the two parts of one data set, or any two sources, classes matched by name."""

from pathlib import Path

import torch

from groco_cli import console
from groco_cli.data.sources import Dataset, Source, open_dataset, thinned
from groco_cli.data.sources.labels import aligned
from groco_cli.errors import GrocoError

_SHOWN = 5  # classes, in an error


def open_bank_and_queries(bank: str, queries: str, root: Path) -> Dataset:
    """Open what is searched and what is asked, by what `--bank` and `--queries` say.

    Args:
        bank: A source; its training part is the bank.
        queries: A source; its held-out part is asked, all of it where it has none. The bank again stands for one
            data set, of which each image is asked against all others where nothing is held out.
        root: Where named sets are kept.

    Raises:
        GrocoError: If one cannot be opened or has no labels, or a query's class is none of the bank's.
    """
    if same_source(bank, queries):
        return open_dataset(bank, root)
    searched, asked = _opened("--bank", bank, root).train, _opened("--queries", queries, root)
    part = asked.test or asked.train
    for option, name, source in (("--bank", bank, searched), ("--queries", queries, part)):
        if source.labels is None:
            raise GrocoError(
                f"{option} {name} has no labels", "k-NN needs one sub-folder per class, or a labelled list"
            )
    _check_names(searched, part, queries)
    return Dataset(f"{queries} among {bank}", searched, aligned(part, searched, queries))


def same_source(bank: str, queries: str) -> bool:
    """Whether both name one source, perhaps by two ways of writing its path."""
    return Path(bank).expanduser().resolve() == Path(queries).expanduser().resolve()


def thin_out(dataset: Dataset, bank_size: int, query_size: int) -> Dataset:
    """So many images of each part; 0 for all of them."""
    test = None if dataset.test is None else thinned(dataset.test, query_size)
    return Dataset(dataset.name, thinned(dataset.train, bank_size), test)


def check_bank_shows_all(dataset: Dataset) -> None:
    """Check that no query is of a class that the bank has no image of, which could never be right.

    Where nothing is held out, that is the only image of a class. A folder with rare classes has such, so there it is no
    error, but a warning on stderr.

    Args:
        dataset: Labelled.

    Raises:
        GrocoError: If a held-out query is.
    """
    if dataset.test is None:
        _warn_of_only_ones(dataset.train)
        return
    if dataset.test.labels is None or dataset.train.labels is None:
        return
    asked = dataset.test.labels
    absent = asked[~torch.isin(asked, dataset.train.labels)]
    if len(absent):
        names = [dataset.test.classes[label] for label in sorted(set(absent.tolist()))]
        raise GrocoError(
            f"{len(absent):,} of {len(asked):,} queries are of {_listed(names)}, which the bank has no image of",
            "take a larger or another bank, or leave those queries out",
        )


def _warn_of_only_ones(source: Source) -> None:
    """Of classes that have a single image."""
    if source.labels is None:
        return
    once = (torch.bincount(source.labels) == 1).nonzero().flatten()
    if rare := [source.classes[label] for label in once.tolist()]:
        console.warn(
            f"{len(rare):,} of {len(source):,} images can never be classified rightly by all the others: "
            f"{_listed(rare)} of a single image"
        )


def _opened(option: str, name: str, root: Path) -> Dataset:
    try:
        return open_dataset(name, root)
    except GrocoError as error:
        if error.message.startswith(name):
            error.message = f"{option} {error.message}"
        raise


def _check_names(bank: Source, queries: Source, name: str) -> None:
    assert queries.labels is not None
    used = [queries.classes[label] for label in sorted(set(queries.labels.tolist()))]
    unknown = [each for each in used if each not in set(bank.classes)]
    if unknown:
        raise GrocoError(
            f"--queries {name}: {_listed(unknown)} not among the bank's ({', '.join(bank.classes[:_SHOWN])}"
            f"{', …' * (len(bank.classes) > _SHOWN)})",
            "classes are matched by name: call them alike in both, or leave those queries out",
        )


def _listed(classes: list[str]) -> str:
    shown = f"{', '.join(classes[:_SHOWN])}{', …' * (len(classes) > _SHOWN)}"
    return f"class {shown}" if len(classes) == 1 else f"{len(classes):,} classes ({shown})"
