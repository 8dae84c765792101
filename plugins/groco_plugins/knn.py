"""`groco knn`: classify by nearest neighbours; the work is `groco_cli.evaluation`."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groco_cli import console, options, tables
from groco_cli.distributed.command import over_processes
from groco_cli.errors import UsageError
from groco_cli.figures import write_figure
from groco_cli.files import check_picture, check_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groco_cli.data.sources import Dataset
    from groco_cli.evaluation.extraction import Extraction
    from groco_cli.evaluation.index import IndexOptions
    from groco_cli.evaluation.protocol import KNNResult
    from groco_cli.models import Encoder


@over_processes
def knn(
    checkpoints: options.Checkpoints = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", metavar="K", help="Neighbours that vote; may be given again.", show_default="1, 10, 20"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Temperature of the votes' weights exp(cos/T).", show_default="0.07"),
    ] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="Weigh all votes alike.")] = False,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    bank: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME", help="Another source, whose training images are the bank.", show_default="--data"
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME",
            help="Another source, whose held-out images (or all) are the queries.",
            show_default="--data",
        ),
    ] = None,
    bank_size: Annotated[
        int,
        typer.Option(
            "--bank-size",
            metavar="N",
            min=0,
            help="Only N training images: evenly spread ones of files and shards, else the first; 0: all.",
        ),
    ] = 0,
    query_size: Annotated[
        int, typer.Option("--query-size", metavar="N", min=0, help="Likewise, of the test images.")
    ] = 0,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score the untrained encoder and raw pixels beside it.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw queries and their nearest neighbours (.png, .svg, .pdf).",
            show_default=False,
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
    device: options.Device = "auto",
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
    from groco_cli.data.sources import default_root
    from groco_cli.distributed.collectives import rank
    from groco_cli.engine.run_folder import chosen_checkpoints
    from groco_cli.evaluation import comparison, knn_sources
    from groco_cli.evaluation.extraction import choose_extraction
    from groco_cli.evaluation.feature_cache import choose_cache
    from groco_cli.evaluation.index import IndexOptions, parse_bytes
    from groco_cli.evaluation.knn import KS
    from groco_cli.evaluation.knn_table import knn_report

    search = IndexOptions(
        kind=index,
        ivf_above=ivf_above,
        lists=ivf_lists,
        probes=ivf_probes,
        half=half,
        gpus=search_gpus,
        memory=parse_bytes(search_memory),
    )
    weighing = _weighing(temperature, uniform)
    root = default_root(data_root)
    features = choose_extraction(device, workers, cache=choose_cache(cache, no_cache, root), cache_dtype=cache_dtype)
    tables.check_places(csv_file, latex)
    paths = comparison.named_checkpoints(chosen_checkpoints(checkpoints))
    figures = _figures(figure, list(paths))
    compared = comparison.read_compared(paths)
    usual = "" if bank and queries else comparison.chosen_data(data, compared)
    searched, asked = (one or usual for one in (bank, queries))
    whole = knn_sources.open_bank_and_queries(searched, asked, root)
    dataset = knn_sources.thin_out(whole, bank_size, query_size)
    knn_sources.check_bank_shows_all(dataset)
    rows = comparison.paper_rows(compared, dataset, "k-NN") if paper else None

    ks = sorted(set(k or KS))
    score = partial(_score, dataset=dataset, features=features, ks=ks, temperature=weighing, search=search)
    beside = comparison.baselines(compared) if baselines else {}
    results = {one.name: score(one.name, one.encoder) for one in compared}
    to_beat = {label: score(label, encoder) for label, encoder in beside.items()}
    if rank():
        return  # the first process shows and writes the result

    report = knn_report(
        compared,
        results,
        data=dataset.name,
        protocol=results[compared[0].name].protocol if knn_sources.same_source(searched, asked) else "bank/queries",
        temperature=weighing,
        features=features,
        figures=figures,
        baselines=to_beat,
        paper=rows,
    )
    report.show(as_json=as_json, csv_file=csv_file, latex=latex)
    for one, place in zip(compared, figures, strict=True):
        if place:
            _draw(dataset, results[one.name], place)


def _score(
    label: str,
    encoder: "Encoder",
    *,
    dataset: "Dataset",
    features: "Extraction",
    ks: "Sequence[int]",
    temperature: float,
    search: "IndexOptions",
) -> "KNNResult":
    """Classify by the features of one encoder, with a bar of its own."""
    from groco_cli.evaluation.protocol import evaluate_knn

    with console.Bar(f"features, {label}", len(dataset.train) + len(dataset.test or ())) as bar:
        return evaluate_knn(
            encoder,
            dataset,
            ks=ks,
            temperature=temperature,
            device=features.device,
            workers=features.workers,
            options=search,
            cache=None if encoder.metadata.arch == "pixels" else features.cache,  # on the disk they are already
            cache_dtype=features.cache_dtype,
            tell=lambda line: bar.note(f"features   {label}, {line}"),
            advance=bar.advance,
        )


def _weighing(temperature: float | None, uniform: bool) -> float:
    """T of the votes' weights; infinite where all count alike."""
    from groco_cli.evaluation.knn import TEMPERATURE

    if uniform and temperature is not None:
        raise UsageError("--temperature weighs votes, --uniform counts them", "leave one of them out")
    return math.inf if uniform else TEMPERATURE if temperature is None else temperature


def _figures(figure: Path | None, names: list[str]) -> list[Path | None]:
    """Where each encoder's figure goes: `--plot` itself, or, of several, beside it with the encoder's name."""
    if figure is None:
        return [None] * len(names)
    check_picture(figure, "--plot")
    several = [figure.with_stem(f"{figure.stem}-{name.replace('/', '-')}") for name in names]
    places = several if len(names) > 1 else [figure]
    for place in places:
        check_writable(place)
    return [*places]


def _draw(dataset: "Dataset", result: "KNNResult", place: Path) -> None:
    from groco_cli.evaluation.knn_figure import draw_neighbours

    figure = draw_neighbours(dataset, result.neighbours, f"Nearest neighbours on {dataset.name}")
    if lacking := write_figure(figure, place):
        console.warn(f"{place}: matplotlib's font lacks {lacking!r}, drawn as boxes")
    console.note(f"figure: {place}")
