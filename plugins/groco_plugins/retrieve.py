"""`groco retrieve`: search by example; the work is `groco_cli.evaluation`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groco_cli import console, options, tables
from groco_cli.distributed.command import over_processes
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_writable

if TYPE_CHECKING:
    from groco_cli.evaluation.comparison import Compared
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
        Path | None, typer.Option(metavar="DIR", help="Another folder of images to search.", show_default=False)
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The ground truth of --images, .json or .pkl.", show_default=False),
    ] = None,
    distractors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder of images to add to the database, always wrong.", show_default=False
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Protocol: dino (as the paper evaluates) or revisitop (queries cropped to their box)."
        ),
    ] = "dino",
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=8,
            help="Longer side that larger images are shrunk to, pixels.",
            show_default="224; 512 for rparis6k",
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="X,X,…",
            help="Factors of the image size that features are averaged over.",
            show_default="1; 1,0.7071,0.5 for rparis6k",
        ),
    ] = None,
    crop: Annotated[
        bool | None, typer.Option("--crop/--whole", help="Crop queries to their box.", show_default="by the protocol")
    ] = None,
    whiten: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of images to learn a PCA whitening on.", show_default="none"),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page of the queries and what was found.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Images per query on that page.")] = 10,
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
    """Search a set of images with example images, and score what is found.

    mAP and mP@1, 5, 10 under the easy, medium and hard setups of revisited Oxford and Paris, or of any folder with a
    ground truth in the same form.
    """
    from groco_cli.data.sources import default_root
    from groco_cli.distributed.collectives import rank
    from groco_cli.engine.run_folder import chosen_checkpoints
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.extraction import choose_extraction
    from groco_cli.evaluation.feature_cache import choose_cache
    from groco_cli.evaluation.retrieval_page import retrieval_page
    from groco_cli.evaluation.retrieval_protocol import named_protocol
    from groco_cli.evaluation.retrieval_search import evaluate_retrieval, pictures_to_see
    from groco_cli.evaluation.retrieval_table import retrieval_report, retrieval_settings, table_2

    published = named_protocol(protocol, dataset or "")
    used = _overridden(published, image_size, scales, crop, whiten)
    root = default_root(data_root)
    features = choose_extraction(device, workers, cache=choose_cache(cache, no_cache, root), cache_dtype=cache_dtype)
    data = _open(dataset, root, images, ground_truth, distractors)
    seen = pictures_to_see(data, used)
    if html:
        check_writable(html)
    tables.check_places(csv_file, latex)
    compared = comparison.read_compared(comparison.named_checkpoints(chosen_checkpoints(checkpoints)))
    rows = table_2(data.name) if paper else None
    if paper and not rows:
        console.warn(f"--paper: the paper's retrieval is on roxford5k and rparis6k, it has no row for {data.name}")

    def score(one: "Compared") -> "RetrievalResult":
        with console.Bar(f"features, {one.name}", seen) as bar:
            return evaluate_retrieval(
                one.encoder,
                data,
                used,
                device=features.device,
                workers=features.workers,
                top=top,
                cache=features.cache,
                cache_dtype=features.cache_dtype,
                tell=lambda line: bar.note(f"features   {one.name}, {line}"),
                advance=bar.advance,
            )

    results = {one.name: score(one) for one in compared}
    if rank():
        return  # the first process shows and writes the result

    report = retrieval_report(compared, results, data, used, published, features, html=html, paper=rows)
    report.show(as_json=as_json, csv_file=csv_file, latex=latex)
    if html:
        settings = retrieval_settings(compared, results, data, used, published, features)
        page = retrieval_page(data, results, settings)
        with atomic_write(html) as temporary:
            temporary.write_text(page, encoding="utf-8")
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
    from groco_cli.evaluation.retrieval_set import open_images, open_published, with_distractors

    if dataset and (images or ground_truth):
        raise UsageError(f"--dataset {dataset} has its own images", "leave out --images and --ground-truth")
    if dataset:
        data = open_published(dataset, root)
    elif images and ground_truth:
        data = open_images(images, ground_truth)
    elif images or ground_truth:
        raise UsageError("--images and --ground-truth belong together", "give both")
    else:
        raise UsageError("nothing to search in", "type --dataset roxford5k, or give --images and --ground-truth")
    return with_distractors(data, distractors) if distractors else data
