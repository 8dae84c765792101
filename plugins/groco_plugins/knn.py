"""`groco knn`: classify by nearest neighbours; the work is `groco_cli.evaluation`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console, options, tables
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_writable
from groco_cli.together import over_processes

if TYPE_CHECKING:
    from groco_cli.data.sources import Dataset
    from groco_cli.evaluation.protocol import KNNResult
    from groco_cli.models import Encoder

PICTURES = (".png", ".svg", ".pdf")


@over_processes
def knn(
    checkpoints: options.Checkpoints = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="Neighbours; may be given again.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="T of the votes' weights exp(cos/T).", show_default="0.07")
    ] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="Count all votes alike.")] = False,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    bank: Annotated[
        str | None,
        typer.Option(metavar="PATH|NAME", help="Search the training images of this instead.", show_default="--data"),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME", help="Classify the held-out images of this, or all it has.", show_default="--data"
        ),
    ] = None,
    bank_size: Annotated[
        int, typer.Option("--bank-size", min=0, help="Only the first so many training images; 0 for all.")
    ] = 0,
    query_size: Annotated[
        int, typer.Option("--query-size", min=0, help="Only the first so many test images; 0 for all.")
    ] = 0,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score the untrained encoder and raw pixels beside it.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw queries and what is nearest them (.png, .svg, .pdf).", show_default=False
        ),
    ] = None,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    csv_file: options.Csv = None,
    latex: options.Latex = None,
    paper: options.Paper = False,
    index: options.Index = "exact",
    half: options.Half = False,
    search_memory: options.SearchMemory = "1GB",
    search_gpus: options.SearchGPUs = 1,
    ivf_above: options.IVFAbove = 0,
    ivf_lists: options.IVFLists = 0,
    ivf_probes: options.IVFProbes = 0,
    device: options.Device = None,
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Classify test images by their nearest training images, weighted by similarity.

    The checkpoint says architecture, image size, normalisation and data. The bank is all training images, the queries
    are all test images; a folder without a val or test part is scored leave-one-out: each image by all the others.
    Several checkpoints are compared on the same images.
    """
    import math

    from groco_cli import devices
    from groco_cli.data.pool import default_workers
    from groco_cli.data.sources import data_root as root_of
    from groco_cli.engine.run_folder import newest_checkpoint
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.feature_cache import check_dtype, choose_cache
    from groco_cli.evaluation.index import IndexOptions, parse_bytes
    from groco_cli.evaluation.knn import KS, TEMPERATURE
    from groco_cli.evaluation.knn_sources import (
        check_bank_shows_all,
        open_bank_and_queries,
        same_source,
        take_first,
    )
    from groco_cli.evaluation.knn_table import knn_table, paper_notes
    from groco_cli.evaluation.processes import number
    from groco_cli.evaluation.protocol import evaluate_knn

    chosen = devices.choose_device(device or "auto")
    search = IndexOptions(
        kind=index,
        ivf_above=ivf_above,
        lists=ivf_lists,
        probes=ivf_probes,
        half=half,
        gpus=search_gpus,
        memory=parse_bytes(search_memory),
    )
    if uniform and temperature is not None:
        raise UsageError("--temperature weighs votes, --uniform counts them", "leave one of them out")
    weighing = math.inf if uniform else TEMPERATURE if temperature is None else temperature
    check_dtype(cache_dtype or "fp32")
    root = root_of(str(data_root or ""))
    kept = choose_cache(cache, no_cache, root)
    tables.check_places(csv_file, latex)
    paths = comparison.named_checkpoints(checkpoints or [newest_checkpoint()])
    pictures = _pictures(plot, list(paths))
    compared = comparison.read_compared(paths)
    searched, asked = (one or data or comparison.trained_on(compared) for one in (bank, queries))
    whole = open_bank_and_queries(searched, asked, root)
    dataset = take_first(whole, bank_size, query_size)
    check_bank_shows_all(dataset)
    rows = comparison.paper_rows(compared, dataset, "k-NN") if paper else []
    ks = sorted(set(k or KS))

    def result_of(label: str, encoder: "Encoder") -> "KNNResult":
        bar, task = console.progress(f"features, {label}", len(dataset.train) + len(dataset.test or ()))
        with bar:
            return evaluate_knn(
                encoder,
                dataset,
                ks=ks,
                temperature=weighing,
                device=chosen,
                workers=default_workers(chosen) if workers is None else workers,
                options=search,
                cache=None if encoder.metadata.arch == "pixels" else kept,  # on the disk they are already
                cache_dtype=cache_dtype or "fp32",
                tell=lambda line: console.note(f"features   {label}, {line}", above=bar),
                advance=lambda count: bar.advance(task, count),
            )

    beside = comparison.baselines(compared) if baselines else {}
    results = {one.name: result_of(one.name, one.encoder) for one in compared}
    to_beat = {label: result_of(label, encoder) for label, encoder in beside.items()}
    if number():
        return  # the first process shows and writes the result

    result = results[compared[0].name]
    protocol = result.protocol if same_source(searched, asked) else "bank/queries"
    facts = {
        "data": dataset.name,
        "protocol": protocol,
        "bank": result.bank,
        "queries": result.queries,
        "temperature": weighing if math.isfinite(weighing) else None,
        "device": devices.describe(chosen),
        "cache_dtype": cache_dtype or "fp32",
        "backend": result.backend,
        "recall": result.neighbours.recall,
    }
    encoders = [
        one.record() | {"knn": _scores(results[one.name]), "figure": place and str(place)}
        for one, place in zip(compared, pictures, strict=True)
    ]
    record = comparison.with_record_of_one(facts, encoders)
    if baselines:
        record["baselines"] = {label: _scores(one) for label, one in to_beat.items()}
    if paper:
        record["paper"] = [row.record() for row in rows]
    table = knn_table([*to_beat.items(), *results.items()], rows)
    title = f"k-NN on {dataset.name}, {protocol}: {result.queries:,} queries, bank of {result.bank:,}"
    kept_as = ", kept in fp16" * (cache_dtype == "fp16")
    weights = f"T {weighing}" if math.isfinite(weighing) else "votes unweighted"
    notes = [f"{weights}; features on {facts['device']}{kept_as}; search by {result.backend}"]
    if rows:
        notes += [*paper_notes(result, weighing), *comparison.recipe_notes(compared)]
    console.result(record, console.titled(title, table.table(), "\n".join(notes)), as_json=as_json)
    tables.write(table, csv_file=csv_file, latex=latex, about="\n".join([title, *notes]))
    for one, place in zip(compared, pictures, strict=True):
        if place:
            _draw(dataset, results[one.name], place)


def _scores(result: "KNNResult") -> dict[str, Any]:
    """Scores for --json, by k."""
    return {str(k): asdict(score) for k, score in result.scores.items()}


def _pictures(plot: Path | None, names: list[str]) -> list[Path | None]:
    """Where each encoder's picture goes: `--plot` itself, or, of several, beside it with the encoder's name."""
    if plot is None:
        return [None] * len(names)
    if plot.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {plot} has no known ending", f"it may be {', '.join(PICTURES)}")
    several = [plot.with_stem(f"{plot.stem}-{name.replace('/', '-')}") for name in names]
    places = several if len(names) > 1 else [plot]
    for place in places:
        check_writable(place)
    return [*places]


def _draw(dataset: "Dataset", result: "KNNResult", place: Path) -> None:
    from groco_cli.evaluation.knn_figure import draw_neighbours

    with atomic_write(place) as temporary:
        draw_neighbours(dataset, result.neighbours, f"Nearest neighbours on {dataset.name}").savefig(temporary, dpi=150)
    console.note(f"figure: {place}")
