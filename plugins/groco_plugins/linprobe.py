"""`groco linprobe`: train a linear classifier on a frozen encoder; the work is `groco_cli.evaluation`."""

import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console, options, tables
from groco_cli.distributed.command import over_processes
from groco_cli.wording import counted

if TYPE_CHECKING:
    from groco_cli.data.sources import Dataset
    from groco_cli.evaluation.comparison import Compared
    from groco_cli.evaluation.extraction import Extraction
    from groco_cli.evaluation.linear import LinearScore
    from groco_cli.evaluation.linear_protocol import LinearProbe, ProbeSettings
    from groco_cli.evaluation.linear_state import ProbeRun
    from groco_cli.evaluation.linear_table import Probed
    from groco_cli.models import Encoder


@over_processes
def linprobe(
    checkpoints: options.Checkpoints = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the training images.", show_default="90")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images per step, over all processes.", show_default="4096")
    ] = None,
    learning_rates: Annotated[
        list[float] | None,
        typer.Option(
            "--lr",
            metavar="LR",
            help="Learning rate for a batch of 256; given again, several at once.",
            show_default="0.1",
        ),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(metavar="X", help="Weight decay.", show_default="0")] = None,
    cached: Annotated[
        bool | None,
        typer.Option("--cached", help="Train on cached features of un-augmented images: quick, not as published."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Probe the untrained encoder and raw pixels beside it.")
    ] = False,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The probe's folder; of several checkpoints, a folder for theirs.",
            show_default="the next under runs/",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the probe in --output, or the newest.")] = False,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="Precision of the encoder: auto, fp32, bf16 or fp16; the classifier's is fp32.",
            show_default="fp32",
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
    from groco_cli import devices
    from groco_cli.data.sources import default_root, open_dataset
    from groco_cli.distributed.collectives import rank
    from groco_cli.engine.run_folder import checkpoint_at, newest_checkpoint, newest_probe
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.extraction import choose_extraction
    from groco_cli.evaluation.feature_cache import choose_cache
    from groco_cli.evaluation.linear_protocol import ProbeSettings, check_probe_data
    from groco_cli.evaluation.linear_run import check_same_data, check_same_encoder, new_run, resumed_run, stamp_of
    from groco_cli.evaluation.linear_table import linear_report

    tables.check_places(csv_file, latex)
    root = default_root(data_root)
    features = choose_extraction(device, workers, cache=choose_cache(cache, no_cache, root))
    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rates": tuple(learning_rates) if learning_rates else None,
        "weight_decay": weight_decay,
        "cached": cached,
        "precision": devices.choose_precision(precision, features.device) if precision else None,
        "cache_dtype": cache_dtype,
        "seed": seed,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if resume and output is None:
        output = newest_probe().path
    named = [checkpoint_at(path) for path in checkpoints or ()]
    before = resumed_run(output, given, named, data) if resume and output else None
    paths = named or [Path(before.checkpoint) if before else newest_checkpoint()]
    compared = comparison.read_compared(comparison.named_checkpoints(paths))
    source = before.data if before else comparison.chosen_data(data, compared)
    if before:
        check_same_encoder(before, compared[0])
    settings = before.settings if before else ProbeSettings(**given)
    dataset = open_dataset(source, root)
    check_probe_data(dataset, settings)
    stamp = stamp_of(dataset)
    if before:
        check_same_data(before, stamp)
    runs = [before or new_run(one, source, stamp, settings) for one in compared]
    rows = comparison.paper_rows(compared, dataset, "linear probe") if paper else None
    folders = _folders(output, compared, resume)

    _announce(dataset, settings, features)
    beside = comparison.baselines(compared) if baselines else {}
    to_beat = {label: _baseline(label, encoder, dataset, settings, features) for label, encoder in beside.items()}
    probed = {
        one.name: _probe(one, run, dataset, features, folder, resume)
        for one, run, folder in zip(compared, runs, folders, strict=True)
    }
    if rank():
        return  # the first process shows and writes the result

    report = linear_report(
        compared,
        probed,
        data=dataset,
        settings=settings,
        device=features.device,
        baselines=to_beat,
        paper=rows,
    )
    report.show(as_json=as_json, csv_file=csv_file, latex=latex)


def _announce(dataset: "Dataset", settings: "ProbeSettings", features: "Extraction") -> None:
    """Say what all probes have in common."""
    from groco_cli import devices
    from groco_cli.distributed.collectives import world_size

    assert dataset.test is not None
    console.note(f"data       {dataset.name}: {counted(len(dataset.train), 'image')}, {len(dataset.test):,} held out")
    among = f", {world} processes" if (world := world_size()) > 1 else ""
    console.note(f"device     {devices.describe(features.device)}{among}, encoder in {settings.precision}")


def _probe(
    one: "Compared", run: "ProbeRun", dataset: "Dataset", features: "Extraction", folder: Path, resume: bool
) -> "Probed":
    """Train the probe of one encoder, and leave its heads in its folder."""
    from groco_cli.evaluation.linear_state import load_state, save_heads, save_state
    from groco_cli.evaluation.linear_table import Probed

    probe = _prepared(one.encoder, dataset, run.settings, features)
    if resume:
        load_state(folder, probe)
    console.note(f"probe      {folder}" + (f", resumed after epoch {len(probe.history)}" if resume else ""))
    _train(
        probe,
        len(dataset.train),
        save=lambda: save_state(folder, run, probe),
        go_on=f"go on with: groco linprobe --resume --output {shlex.quote(str(folder))}",
    )
    heads = save_heads(folder, run, probe, dataset.train.classes, one.encoder.metadata)
    return Probed(scores=probe.history[-1], folder=folder, heads=heads)


def _baseline(
    label: str, encoder: "Encoder", dataset: "Dataset", settings: "ProbeSettings", features: "Extraction"
) -> "list[LinearScore]":
    """Train a probe that nothing is kept of."""
    from dataclasses import replace

    console.note(f"baseline   {label}")
    if encoder.metadata.arch == "pixels":
        features = replace(features, cache=None)  # on the disk they are already
    probe = _prepared(encoder, dataset, settings, features)
    _train(probe, len(dataset.train), save=lambda: None, go_on="nothing of a baseline is saved: type the same again")
    return probe.history[-1]


def _prepared(
    encoder: "Encoder", dataset: "Dataset", settings: "ProbeSettings", features: "Extraction"
) -> "LinearProbe":
    """Say by which protocol, and extract what features stay the same."""
    from groco_cli.evaluation.linear_protocol import prepare_probe

    assert dataset.test is not None
    console.note(f"protocol   {settings.protocol(encoder.metadata)}")
    with console.Bar("features", len(dataset.test) + settings.cached * len(dataset.train)) as bar:
        return prepare_probe(
            encoder,
            dataset,
            settings,
            device=features.device,
            workers=features.workers,
            cache=features.cache,
            tell=lambda line: bar.note(f"features   {line}"),
            advance=bar.advance,
        )


def _train(probe: "LinearProbe", images: int, *, save: Callable[[], None], go_on: str) -> None:
    """Train a probe to its last epoch, and save it after each; say how to go on where it is stopped."""
    from groco_cli.distributed.interrupt import Interrupted

    epochs, done = probe.settings.epochs, len(probe.history)
    try:
        with console.Bar("linear probe", epochs * images, done=done * images) as bar:
            for scores in probe.run(advance=bar.advance):
                save()
                bar.note(f"epoch {len(probe.history)}/{epochs}  {_in_a_line(scores)}")
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"in epoch {len(probe.history) + 1} of {epochs}",
            go_on if probe.history else "nothing is saved yet",
            signal.SIGINT,
        ) from error


def _folders(output: Path | None, compared: "list[Compared]", resume: bool) -> list[Path]:
    """Each probe's folder, made and found writable by the first process, and the same in all."""
    from groco_cli.distributed.collectives import from_first, rank
    from groco_cli.engine.run_folder import new_run_folder
    from groco_cli.evaluation.linear_run import probe_outputs

    places = probe_outputs(output, [one.name for one in compared], resume=resume)
    return from_first([] if rank() else [new_run_folder(place, "linprobe").path for place in places])


def _in_a_line(scores: "list[LinearScore]") -> str:
    return "  ".join(f"lr {s.learning_rate:g}: loss {s.train_loss:.4f}, top-1 {s.top1:.2%}" for s in scores)
