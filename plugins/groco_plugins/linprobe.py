"""`groco linprobe`: train a linear classifier on a frozen encoder; the work is `groco_cli.evaluation`."""

import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console, options, tables
from groco_cli.errors import GrocoError, UsageError
from groco_cli.together import over_processes

if TYPE_CHECKING:
    import torch

    from groco_cli.data.sources import Dataset
    from groco_cli.engine.run_folder import RunFolder
    from groco_cli.evaluation.comparison import Compared
    from groco_cli.evaluation.linear import LinearScore
    from groco_cli.evaluation.linear_state import ProbeRun

_SETTINGS = ("epochs", "batch_size", "learning_rates", "weight_decay", "cached", "precision", "cache_dtype", "seed")
_OPTIONS = {"learning_rates": "--lr"}


@over_processes
def linprobe(
    checkpoints: options.Checkpoints = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.", show_default="90")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", show_default="4096")] = None,
    learning_rates: Annotated[
        list[float] | None,
        typer.Option(
            "--lr", help="Learning rate for a batch of 256; given again, several at once.", show_default="0.1"
        ),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.", show_default="0")] = None,
    cached: Annotated[
        bool | None,
        typer.Option("--cached", help="Train on cached features of un-augmented images: quick, not as published."),
    ] = None,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The probe's folder; of several, the one above.", show_default="the next under runs/"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the probe in --output, or the newest.")] = False,
    device: options.Device = None,
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="Of the encoder: auto, fp32, bf16 or fp16; heads are fp32.", show_default="fp32"
        ),
    ] = None,
    workers: options.Workers = None,
    seed: options.Seed = None,
    csv_file: options.Csv = None,
    latex: options.Latex = None,
    paper: options.Paper = False,
    as_json: options.Json = False,
) -> None:
    """Train a linear classifier on the features of a frozen encoder, and score it on held-out images.

    The protocol is SimSiam's; the result says what was altered. The classifier goes to a folder of its own, a file for
    each learning rate. Ctrl-C stops; --resume goes on from the last whole epoch. Several checkpoints are probed one
    after another, and compared.
    """
    given = {name: value for name, value in locals().items() if name in _SETTINGS and value is not None}

    from groco_cli import devices
    from groco_cli.data.pool import default_workers
    from groco_cli.data.sources import data_root as root_of
    from groco_cli.data.sources import open_dataset
    from groco_cli.engine.run_folder import newest_probe
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.feature_cache import choose_cache, encoder_hash
    from groco_cli.evaluation.linear_protocol import check_probe_data
    from groco_cli.evaluation.linear_table import linear_table, paper_notes, probe_note, probe_record
    from groco_cli.evaluation.processes import number

    tables.check_places(csv_file, latex)
    root = root_of(str(data_root or ""))
    kept = choose_cache(cache, no_cache, root)
    chosen = devices.choose_device(device or "auto")
    if precision:
        given["precision"] = devices.choose_precision(precision, chosen)
    if resume and output is None:
        output = newest_probe().path
    before = _resumed(output, given, checkpoints, data) if resume and output else None
    compared = comparison.read_compared(comparison.named_checkpoints(_checkpoints(checkpoints, before)))
    source = before.data if before else comparison.chosen_data(data, compared)
    runs = [before or _new_run(one.path, encoder_hash(one.encoder), source, given) for one in compared]
    if before and before.encoder != encoder_hash(compared[0].encoder):
        raise GrocoError(f"--resume: {compared[0].path} has other weights now", "start anew with another --output")
    settings = runs[0].settings
    dataset = open_dataset(source, root)
    check_probe_data(dataset, settings)
    assert dataset.test is not None
    rows = comparison.paper_rows(compared, dataset, "linear probe") if paper else []
    folders = [_folder(one, resume) for one in _outputs(output, list(compared))]

    results: dict[str, list[LinearScore]] = {}
    encoders: list[dict[str, Any]] = []
    for one, run, folder in zip(compared, runs, folders, strict=True):
        results[one.name], heads = _probe(
            one,
            run,
            dataset,
            folder,
            resume=resume,
            device=chosen,
            workers=default_workers(chosen) if workers is None else workers,
            cache=kept,
        )
        encoders.append(
            one.record()
            | {"output": str(folder.path)}
            | probe_record(run.settings, one.encoder.metadata, results[one.name], heads)
        )

    if number():
        return  # the first process shows and writes the result
    facts: dict[str, Any] = {
        "data": dataset.name,
        "settings": asdict(settings),
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "device": devices.describe(chosen),
    }
    record = comparison.with_record_of_one(facts, encoders)
    if paper:
        record["paper"] = [row.record() for row in rows]
    table = linear_table(results, rows)
    title = f"Linear probe on {dataset.name}: {len(dataset.test):,} images"
    notes = [f"after epoch {settings.epochs}, on {facts['device']}", *map(probe_note, results, encoders)]
    if rows:
        notes += [*paper_notes(), *comparison.recipe_notes(compared)]
    console.result(record, console.titled(title, table.table(), "\n".join(notes)), as_json=as_json)
    tables.write(table, csv_file=csv_file, latex=latex, about="\n".join([title, *notes]))


def _probe(
    one: "Compared",
    run: "ProbeRun",
    dataset: "Dataset",
    folder: "RunFolder",
    *,
    resume: bool,
    device: "torch.device",
    workers: int,
    cache: Path | None,
) -> "tuple[list[LinearScore], list[Path]]":
    """Train the probe of one encoder, and leave its heads in its folder."""
    from groco_cli import devices
    from groco_cli.engine.interrupt import Interrupted
    from groco_cli.evaluation.linear_protocol import prepare_probe
    from groco_cli.evaluation.linear_state import load_state, save_heads, save_state
    from groco_cli.evaluation.processes import count

    settings, about = run.settings, one.encoder.metadata
    assert dataset.test is not None
    console.note(f"protocol   {settings.protocol(about)}")
    console.note(f"data       {dataset.name}: {len(dataset.train):,} images, {len(dataset.test):,} held out")
    among = f", {world} processes" if (world := count()) > 1 else ""
    console.note(f"device     {devices.describe(device)}{among}, encoder in {settings.precision}")
    bar, task = console.progress("features", len(dataset.test) + settings.cached * len(dataset.train))
    with bar:
        probe = prepare_probe(
            one.encoder,
            dataset,
            settings,
            device=device,
            workers=workers,
            cache=cache,
            tell=lambda line: console.note(f"features   {line}", above=bar),
            advance=lambda images: bar.advance(task, images),
        )
    if resume:
        load_state(folder.path, probe)
    done = len(probe.history)
    console.note(f"probe      {folder.path}" + (f", resumed after epoch {done}" if resume else ""))
    bar, task = console.progress("linear probe", settings.epochs * len(dataset.train))
    bar.update(task, completed=done * len(dataset.train))
    try:
        with bar:
            for scores in probe.run(advance=lambda images: bar.advance(task, images)):
                save_state(folder.path, run, probe)
                console.note(f"epoch {len(probe.history)}/{settings.epochs}  {_in_a_line(scores)}", above=bar)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"in epoch {len(probe.history) + 1} of {settings.epochs}",
            f"go on with: groco linprobe --resume --output {folder.path}" if probe.history else "nothing is saved yet",
            signal.SIGINT,
        ) from error
    return probe.history[-1], save_heads(folder.path, run, probe, dataset.train.classes, about)


def _new_run(path: Path, encoder: str, data: str, given: dict[str, Any]) -> "ProbeRun":
    from groco_cli.evaluation.linear_protocol import ProbeSettings
    from groco_cli.evaluation.linear_state import ProbeRun
    from groco_cli.evaluation.processes import count

    rates = {"learning_rates": tuple(given["learning_rates"])} if "learning_rates" in given else {}
    settings = ProbeSettings(**given | rates)
    return ProbeRun(checkpoint=str(path), encoder=encoder, data=data, settings=settings, processes=count())


def _resumed(output: Path, given: dict[str, Any], checkpoints: list[Path] | None, data: str | None) -> "ProbeRun":
    """The run in a probe's folder, which keeps its settings."""
    from groco_cli.evaluation.linear_state import read_run
    from groco_cli.evaluation.processes import count

    if len(checkpoints or ()) > 1:
        raise UsageError("--resume goes on with one probe", "leave out the checkpoints")
    run = read_run(output.expanduser())
    kept = asdict(run.settings) | {"data": run.data}
    for name, value in (given | ({"data": data} if data else {})).items():
        if (tuple(value) if isinstance(value, list) else value) != kept[name]:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"--resume takes the probe's own settings, not another {option}", f"leave out {option}")
    if checkpoints and str(checkpoints[0]) != run.checkpoint:
        console.note(f"the probe was begun with {run.checkpoint}")
    if run.processes != count():
        console.note(f"the probe was begun in {run.processes} processes, not {count()}: the same but for rounding")
    return run


def _checkpoints(given: list[Path] | None, before: "ProbeRun | None") -> list[Path]:
    from groco_cli.engine.run_folder import newest_checkpoint

    return given or [Path(before.checkpoint) if before else newest_checkpoint()]


def _outputs(output: Path | None, compared: "list[Compared]") -> list[Path | None]:
    """Where each probe goes: `--output` itself, or, of several, a folder in it with the encoder's name."""
    if output is None or len(compared) == 1:
        return [output] * len(compared)
    return [output / one.name.replace("/", "-") for one in compared]


def _folder(output: Path | None, resume: bool) -> "RunFolder":
    """The probe's folder, made and found writable by the first process, and the same in all."""
    from groco_cli.engine.run_folder import RunFolder, new_run_folder
    from groco_cli.evaluation.linear_state import STATE
    from groco_cli.evaluation.processes import from_first, number

    if number():
        return RunFolder(from_first(Path()))
    if output and not resume and (output.expanduser() / STATE).exists():
        raise UsageError(f"--output {output} already holds a linear probe", "type --resume to go on, or name another")
    return RunFolder(from_first(new_run_folder(str(output or ""), "linprobe").path))


def _in_a_line(scores: "list[LinearScore]") -> str:
    return "  ".join(f"lr {s.learning_rate:g}: loss {s.train_loss:.4f}, top-1 {s.top1:.2%}" for s in scores)
