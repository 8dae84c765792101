"""`groco knn`: classify by nearest neighbours; the work is `groco_cli.evaluation`."""

from pathlib import Path
from typing import Annotated

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_writable

PICTURES = (".png", ".svg", ".pdf")


def knn(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CKPT]", help="A checkpoint.", show_default="the newest run's")
    ] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="Neighbours; may be given again.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="T of the votes' weights exp(cos/T).", show_default="0.07")
    ] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="Count all votes alike.")] = False,
    data: options.Data = None,
    data_root: options.DataRoot = None,
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
    index: options.Index = "exact",
    half: options.Half = False,
    search_memory: options.SearchMemory = "1GB",
    search_gpus: options.SearchGPUs = 1,
    ivf_above: options.IVFAbove = 0,
    ivf_lists: options.IVFLists = 0,
    ivf_probes: options.IVFProbes = 0,
    device: options.Device = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Classify test images by their nearest training images, weighted by similarity.

    The checkpoint says architecture, image size, normalisation and data. The bank is all training images, the queries
    are all test images; a folder without a val or test part is scored leave-one-out: each image by all the others.
    """
    import math
    from dataclasses import asdict, replace

    from groco_cli import devices
    from groco_cli.data.loader import default_workers
    from groco_cli.data.sources import data_root as root_of
    from groco_cli.data.sources import first, open_dataset
    from groco_cli.engine.run_folder import newest_checkpoint
    from groco_cli.evaluation.index import IndexOptions, parse_bytes
    from groco_cli.evaluation.knn import KS, TEMPERATURE
    from groco_cli.evaluation.protocol import evaluate_knn, pixels, read_encoder, untrained

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
    if plot:
        if plot.suffix.lower() not in PICTURES:
            raise UsageError(f"--plot {plot} has no known ending", f"it may be {', '.join(PICTURES)}")
        check_writable(plot)
    path = checkpoint or newest_checkpoint()
    encoder = read_encoder(path)
    metadata = encoder.metadata
    name = data or metadata.data
    if not name:
        raise UsageError(f"{path} does not say what it was trained on", "give --data")
    dataset = open_dataset(name, root_of(str(data_root or "")))
    dataset = replace(
        dataset, train=first(dataset.train, bank_size), test=dataset.test and first(dataset.test, query_size)
    )
    ks = sorted(set(k or KS))
    console.note(f"checkpoint {path}: {metadata.arch}, {metadata.method}, {metadata.epoch} epochs")

    encoders = {"trained": encoder}
    if baselines:
        encoders = {"untrained": untrained(metadata), "pixels": pixels(metadata), **encoders}
    results = {}
    for label, each in encoders.items():
        bar, task = console.progress(f"features, {label}", len(dataset.train) + len(dataset.test or ()))
        with bar:
            results[label] = evaluate_knn(
                each,
                dataset,
                ks=ks,
                temperature=weighing,
                device=chosen,
                workers=default_workers(chosen) if workers is None else workers,
                options=search,
                advance=lambda count, bar=bar, task=task: bar.advance(task, count),  # type: ignore[misc]
            )

    result = results["trained"]
    facts = {
        "checkpoint": str(path),
        "arch": metadata.arch,
        "data": dataset.name,
        "protocol": result.protocol,
        "bank": result.bank,
        "queries": result.queries,
        "temperature": weighing if math.isfinite(weighing) else None,
        "device": devices.describe(chosen),
        "backend": result.backend,
        "recall": result.neighbours.recall,
        "figure": plot and str(plot),
    }
    scores = {label: {str(n): asdict(score) for n, score in one.scores.items()} for label, one in results.items()}
    table = console.table(
        ["encoder", "k", "top-1 %", "top-5 %", "correct"],
        [
            [label, str(n), f"{100 * s.top1:.2f}", f"{100 * s.top5:.2f}", f"{s.correct}/{s.total}"]
            for label, one in results.items()
            for n, s in one.scores.items()
        ],
    )
    weights = f"T {weighing}" if math.isfinite(weighing) else "votes unweighted"
    shown = console.titled(
        f"k-NN on {dataset.name}, {result.protocol}: {result.queries:,} queries, bank of {result.bank:,}",
        table,
        f"{weights}; features on {facts['device']}; search by {result.backend}",
    )
    trained = scores.pop("trained")
    console.result({**facts, "knn": trained} | ({"baselines": scores} if baselines else {}), shown, as_json=as_json)
    if plot:
        from groco_cli.evaluation.knn_figure import draw_neighbours

        with atomic_write(plot) as temporary:
            draw_neighbours(dataset, result.neighbours, f"Nearest neighbours on {dataset.name}").savefig(
                temporary, dpi=150
            )
        console.note(f"figure: {plot}")
