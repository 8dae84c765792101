"""`groco transfer`: k-NN on other sets than was trained on; the work is `groco_cli.evaluation.transfer`."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console, options, tables
from groco_cli.errors import GrocoError, UsageError, did_you_mean
from groco_cli.together import over_processes

if TYPE_CHECKING:
    from groco_cli.data.sources.transfer import Failed, Missing, TransferSet
    from groco_cli.evaluation.comparison import Compared
    from groco_cli.evaluation.transfer import Outcome, Results


@over_processes
def transfer(
    checkpoints: options.Checkpoints = None,
    data_root: options.DataRoot = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--sets", metavar="NAME", help="One of the sets; may be given again.", show_default="all eleven"),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Neighbours.")] = 20,
    temperature: Annotated[float, typer.Option(help="T of the votes' weights exp(cos/T).")] = 0.07,
    linear: Annotated[
        bool, typer.Option("--linear", help="Score a linear classifier on the same features as well.")
    ] = False,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    csv_file: options.Csv = None,
    latex: options.Latex = None,
    paper: options.Paper = False,
    device: options.Device = None,
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Classify eleven other sets by nearest neighbours, as the paper's Table 3 does, or by a linear classifier too.

    Nothing is downloaded: a set that is not below the data root is named, with what has to be put where, and is in no
    average.
    """
    from groco_cli import devices
    from groco_cli.data.pool import default_workers
    from groco_cli.data.sources import default_root
    from groco_cli.data.sources.transfer import TransferSet
    from groco_cli.engine.run_folder import newest_checkpoint
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.feature_cache import check_dtype, choose_cache
    from groco_cli.evaluation.knn import check_votes
    from groco_cli.evaluation.processes import number
    from groco_cli.evaluation.transfer import TransferScore, evaluate_classifiers, nearest
    from groco_cli.evaluation.transfer_linear import PROTOCOL, linear_classifier, linear_notes
    from groco_cli.evaluation.transfer_table import TABLE_3, csv_rows, notes, table_rows

    chosen = devices.choose_device(device or "auto")
    check_votes([k], temperature, max(k, 1))
    tables.check_places(csv_file, latex)
    check_dtype(cache_dtype or "fp32")
    root = default_root(data_root)
    kept = choose_cache(cache, no_cache, root)
    opened = _open(sets, root)
    classifiers = {"k-NN": nearest(k, temperature, chosen)}
    if linear:
        classifiers["linear"] = linear_classifier(chosen)
    images = sum(len(one.train) + len(one.test) for one in opened if isinstance(one, TransferSet))
    compared = comparison.read_compared(comparison.named_checkpoints(checkpoints or [newest_checkpoint()]))

    def outcomes_of(one: "Compared") -> "dict[str, dict[str, Outcome]]":
        with console.Bar(f"features, {one.name}", images) as bar:
            return evaluate_classifiers(
                one.encoder,
                opened,
                classifiers,
                device=chosen,
                workers=default_workers(chosen) if workers is None else workers,
                cache=kept,
                cache_dtype=cache_dtype or "fp32",
                tell=lambda line: bar.note(f"features   {one.name}, {line}"),
                advance=bar.advance,
            )

    results: dict[str, dict[str, Outcome]] = {}
    encoders: dict[str, dict[str, Any]] = {}
    for one in compared:
        for classifier, outcomes in outcomes_of(one).items():
            column = one.name if classifier == "k-NN" else f"{one.name}, {classifier}"
            results[column] = outcomes
            encoders[column] = one.record() | {"classifier": classifier}

    if number():
        return  # the first process shows and writes the result
    facts = {
        "data_root": str(root),
        "k": k,
        "temperature": temperature if math.isfinite(temperature) else None,
        "device": devices.describe(chosen),
        "cache_dtype": cache_dtype or "fp32",
        "backend": next(
            (one.backend for by_set in results.values() for one in by_set.values() if isinstance(one, TransferScore)),
            None,
        ),
    }
    record = {**facts, "encoders": [about | _scores(results, column) for column, about in encoders.items()]}
    if paper:
        record["paper"] = TABLE_3
    if linear:
        record["linear"] = PROTOCOL
    table = tables.of_texts(*table_rows(results, paper=paper))
    head, *scores = csv_rows(results, paper=paper)
    title = f"Transfer by k-NN, k = {k}, T {temperature:g}"
    kept_as = ", kept in fp16" * (cache_dtype == "fp16")
    said = [
        f"features on {facts['device']}{kept_as}; search by {facts['backend'] or 'nothing'}",
        *([PROTOCOL, *linear_notes(results)] if linear else []),
        *notes(results, paper=paper),
    ]
    console.result(record, console.titled(title, table.table(), "\n".join(said)), as_json=as_json)
    spreadsheet = tables.of_texts(head, scores)
    tables.write(table, csv_file=csv_file, latex=latex, about="\n".join([title, *said]), spreadsheet=spreadsheet)
    _tell_failures(results)


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


def _scores(results: "Results", encoder: str) -> dict[str, Any]:
    """An encoder's outcomes for --json; the average is null where no set was measured."""
    from groco_cli.data.sources.transfer import Failed, Missing
    from groco_cli.evaluation.transfer import TransferScore, average, common_scores

    outcomes, common = results[encoder], common_scores(results)[encoder]
    top1, mean = average(common) if common else (None, None)
    return {
        "sets": {name: asdict(one) for name, one in outcomes.items() if isinstance(one, TransferScore)},
        "failed": {name: one.error.message for name, one in outcomes.items() if isinstance(one, Failed)},
        "missing": {name: list(map(str, one.wanted)) for name, one in outcomes.items() if isinstance(one, Missing)},
        "average": {"sets": list(common), "top1": top1, "mean_per_class": mean},
    }


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
