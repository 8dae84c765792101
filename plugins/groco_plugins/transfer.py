"""`groco transfer`: k-NN on other sets than was trained on; the work is `groco_cli.evaluation.transfer`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groco_cli import console, options, tables
from groco_cli.distributed.command import over_processes
from groco_cli.errors import GrocoError, UsageError, did_you_mean

if TYPE_CHECKING:
    from groco_cli.data.sources.transfer import Failed, Missing, TransferSet
    from groco_cli.evaluation.comparison import Compared
    from groco_cli.evaluation.transfer import Results

_SETS = "aircraft, caltech101, cars, cifar10, cifar100, dtd, flowers, food, pets, sun397, voc2007"


@over_processes
def transfer(
    checkpoints: options.Checkpoints = None,
    data_root: options.DataRoot = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--sets", metavar="NAME", help=f"One of {_SETS}; may be given again.", show_default="all eleven"),
    ] = None,
    ks: Annotated[
        list[int] | None, typer.Option("--k", metavar="K", help="Neighbours that vote.", show_default="20")
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Temperature of the votes' weights exp(cos/T).")
    ] = 0.07,
    linear: Annotated[
        bool, typer.Option("--linear", help="Score a linear classifier on the same features as well.")
    ] = False,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    csv_file: options.Csv = None,
    latex: options.Latex = None,
    paper: options.Paper = False,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Classify eleven other sets by nearest neighbours, as the paper's Table 3 does, or by a linear classifier too.

    Nothing is downloaded: a set that is not below the data root is named, with what has to be put where, and is in no
    average.
    """
    from groco_cli.data.sources import default_root
    from groco_cli.data.sources.transfer import TransferSet
    from groco_cli.distributed.collectives import rank
    from groco_cli.engine.run_folder import chosen_checkpoints
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.extraction import choose_extraction
    from groco_cli.evaluation.feature_cache import choose_cache
    from groco_cli.evaluation.knn import check_votes
    from groco_cli.evaluation.transfer import evaluate_classifiers, nearest
    from groco_cli.evaluation.transfer_linear import linear_classifier
    from groco_cli.evaluation.transfer_table import by_column, transfer_report

    k = _only(ks or [20])
    check_votes([k], temperature, max(k, 1))
    tables.check_places(csv_file, latex)
    root = default_root(data_root)
    features = choose_extraction(device, workers, cache=choose_cache(cache, no_cache, root), cache_dtype=cache_dtype)
    opened = _open(sets, root)
    images = sum(len(one.train) + len(one.test) for one in opened if isinstance(one, TransferSet))
    classifiers = {"k-NN": nearest(k, temperature, features.device)}
    if linear:
        classifiers["linear"] = linear_classifier(features.device)
    compared = comparison.read_compared(comparison.named_checkpoints(chosen_checkpoints(checkpoints)))

    def score(one: "Compared") -> "Results":
        with console.Bar(f"features, {one.name}", images) as bar:
            return evaluate_classifiers(
                one.encoder,
                opened,
                classifiers,
                device=features.device,
                workers=features.workers,
                cache=features.cache,
                cache_dtype=features.cache_dtype,
                tell=lambda line: bar.note(f"features   {one.name}, {line}"),
                advance=bar.advance,
            )

    outcomes = {one.name: score(one) for one in compared}
    if rank():
        return  # the first process shows and writes the result

    report = transfer_report(
        compared, outcomes, root=root, k=k, temperature=temperature, features=features, paper=paper
    )
    report.show(as_json=as_json, csv_file=csv_file, latex=latex)
    _tell_failures(by_column(outcomes))


def _only(ks: list[int]) -> int:
    """The one k; groco knn takes several, and here the last would count in silence."""
    if len(ks) > 1:
        raise UsageError(
            f"--k {' and '.join(map(str, ks))}: transfer takes one",
            f"type --k {ks[-1]}, and the command again for another k",
        )
    return ks[0]


def _open(names: list[str] | None, root: Path) -> "list[TransferSet | Failed | Missing]":
    """The sets asked for, in the order of the table; at least one is there."""
    from groco_cli.data.sources.transfer import TRANSFER_SETS, Missing, open_transfer_set
    from groco_cli.evaluation.transfer_table import listed

    for name in names or ():
        if name not in TRANSFER_SETS:
            hint = did_you_mean(name, TRANSFER_SETS) or f"type one of {', '.join(TRANSFER_SETS)}"
            raise UsageError(f"--sets {name}: no such set", hint)
    opened = [open_transfer_set(name, root) for name in TRANSFER_SETS if name in (names or TRANSFER_SETS)]
    missing = [one for one in opened if isinstance(one, Missing)]
    if len(missing) == len(opened):
        raise UsageError(
            f"none of {', '.join(one.name for one in missing)} is below {root}: for {missing[0].name}, there is no "
            f"{listed(missing[0])}",
            "give their place with --data-root; docs/transfer.md says where each goes",
        )
    return opened


def _tell_failures(results: "Results") -> None:
    """A line for each set that failed, behind the result that it is not in; the command then ends with an error."""
    from groco_cli.evaluation.transfer_table import failures

    failed = failures(results)
    for name, error in failed.items():
        console.error(f"{name}: {error.message}", error.hint)
    if failed:
        raise GrocoError(
            f"{len(failed)} failed and {'is' if len(failed) == 1 else 'are'} in no average", "mend the above"
        )
