"""`groco retrieve`: search by example; the work is `groco_cli.evaluation`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groco_cli import console, options, tables
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_writable
from groco_cli.together import over_processes

if TYPE_CHECKING:
    from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
    from groco_cli.evaluation.retrieval_search import RetrievalResult
    from groco_cli.evaluation.retrieval_set import RetrievalSet


@over_processes
def retrieve(
    checkpoints: options.Checkpoints = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="roxford5k or rparis6k, below --data-root.", show_default=False)
    ] = None,
    data_root: options.DataRoot = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures to search instead.", show_default=False)
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Its right answers, .json or .pkl.", show_default=False)
    ] = None,
    distractors: Annotated[
        Path | None, typer.Option(help="A folder of pictures that join the database, always wrong.", show_default=False)
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="dino (as the paper evaluates) or revisitop (queries cropped to their box).")
    ] = "dino",
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Larger pictures are shrunk to this.", show_default="224; 512 for rparis6k"),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            help="Factors that features are averaged over, between commas.",
            show_default="1; 1,0.7071,0.5 for rparis6k",
        ),
    ] = None,
    crop: Annotated[
        bool | None, typer.Option("--crop/--whole", help="Crop queries to their box.", show_default="by the protocol")
    ] = None,
    whiten: Annotated[
        Path | None, typer.Option(help="A folder of pictures to learn a PCA whitening on.", show_default="none")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page of the queries and what was found.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Pictures a query on that page.")] = 10,
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
    """Search a set of pictures with example pictures, and score what is found.

    mAP and mP@1, 5, 10 under the easy, medium and hard setups of revisited Oxford and Paris, or of any folder with a
    ground truth in the same form.
    """
    from groco_cli import devices
    from groco_cli.data.pool import default_workers
    from groco_cli.data.sources import data_root as root_of
    from groco_cli.engine.run_folder import newest_checkpoint
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.feature_cache import check_dtype, choose_cache
    from groco_cli.evaluation.processes import number
    from groco_cli.evaluation.retrieval_page import retrieval_page
    from groco_cli.evaluation.retrieval_protocol import named_protocol
    from groco_cli.evaluation.retrieval_search import BACKEND, evaluate_retrieval, pictures_to_see
    from groco_cli.evaluation.retrieval_table import paper_notes, score_record, score_table, table_2

    chosen = devices.choose_device(device or "auto")
    published = named_protocol(protocol, dataset or "")
    used = _overridden(published, image_size, scales, crop, whiten)
    check_dtype(cache_dtype or "fp32")
    root = root_of(str(data_root or ""))
    data = _open(dataset, root, images, ground_truth, distractors)
    kept = choose_cache(cache, no_cache, root)
    seen = pictures_to_see(data, used)
    if html:
        check_writable(html)
    tables.check_places(csv_file, latex)
    compared = comparison.read_compared(comparison.named_checkpoints(checkpoints or [newest_checkpoint()]))
    rows = table_2(data.name) if paper else {}
    if paper and not rows:
        console.warn(f"--paper: the paper's retrieval is on roxford5k and rparis6k, it has no row for {data.name}")

    results: dict[str, RetrievalResult] = {}
    for one in compared:
        bar, task = console.progress(f"features, {one.name}", seen)
        with bar:
            results[one.name] = evaluate_retrieval(
                one.encoder,
                data,
                used,
                device=chosen,
                workers=default_workers(chosen) if workers is None else workers,
                top=top,
                cache=kept,
                cache_dtype=cache_dtype or "fp32",
                tell=lambda line, bar=bar, name=one.name: console.note(f"features   {name}, {line}", above=bar),  # type: ignore[misc]
                advance=lambda count, bar=bar, task=task: bar.advance(task, count),  # type: ignore[misc]
            )

    if number():
        return  # the first process shows and writes the result
    facts = {
        f"encoder {one.name}": "{checkpoint}, {arch}, {method}, {epoch} epochs".format(**one.record())
        for one in compared
    }
    facts |= {
        "protocol": str(used) + ("" if used == published else " (altered)"),
        "database": f"{len(data.images):,} images and {len(data.distractors):,} distractors",
        "features": f"L2-normalised, on {devices.describe(chosen)}" + ", kept in fp16" * (cache_dtype == "fp16"),
        "search": BACKEND,
    }
    record = {
        "dataset": data.name,
        "images": len(data.images),
        "distractors": len(data.distractors),
        "queries": len(data.queries),
        "protocol": asdict(used) | {"whiten": used.whiten and str(used.whiten), "altered": used != published},
        "device": devices.describe(chosen),
        "cache_dtype": cache_dtype or "fp32",
        "backend": BACKEND,
        "encoders": [one.record() | score_record(results[one.name]) for one in compared],
        "html": html and str(html),
    }
    if paper:
        record["paper"] = {method: {setup: float(ap) for setup, ap in row.items()} for method, row in rows.items()}
    table = score_table(results, rows)
    title = f"Retrieval on {data.name}: {len(data.queries):,} queries"
    notes = [f"{name}: {value}" for name, value in facts.items()]
    if rows:
        notes += paper_notes(used, published, len(data.distractors))
    console.result(record, console.titled(title, table.table(), "\n".join(notes)), as_json=as_json)
    tables.write(table, csv_file=csv_file, latex=latex, about="\n".join([title, *notes]))
    if html:
        with atomic_write(html) as temporary:
            temporary.write_text(retrieval_page(data, results, facts), encoding="utf-8")
        console.note(f"page: {html}")


def _overridden(
    published: "RetrievalProtocol",
    image_size: int | None,
    scales: str | None,
    crop: bool | None,
    whiten: Path | None,
) -> "RetrievalProtocol":
    """The protocol with what was asked for otherwise."""
    from groco_cli.evaluation.retrieval_protocol import parse_scales

    return replace(
        published,
        image_size=published.image_size if image_size is None else image_size,
        scales=published.scales if scales is None else parse_scales(scales),
        crop_query=published.crop_query if crop is None else crop,
        whiten=whiten,
    )


def _open(
    dataset: str | None,
    root: Path,
    images: Path | None,
    ground_truth: Path | None,
    distractors: Path | None,
) -> "RetrievalSet":
    """The set that the options name."""
    from groco_cli.evaluation.retrieval_set import list_pictures, open_images, open_published

    if dataset and (images or ground_truth):
        raise UsageError(f"--dataset {dataset} has its own pictures", "leave out --images and --ground-truth")
    if dataset:
        data = open_published(dataset, root)
    elif images and ground_truth:
        data = open_images(images, ground_truth)
    elif images or ground_truth:
        raise UsageError("--images and --ground-truth belong together", "give both")
    else:
        raise UsageError("nothing to search in", "type --dataset roxford5k, or give --images and --ground-truth")
    return replace(data, distractors=list_pictures(distractors, "--distractors")) if distractors else data
