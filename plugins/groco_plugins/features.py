"""`groco features`: an encoder's features of a data set, for use elsewhere; the work is `groco_cli.evaluation`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from groco_cli import console, options
from groco_cli.distributed.command import over_processes
from groco_cli.errors import UsageError
from groco_cli.files import check_writable


@over_processes
def features(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CKPT", help="The checkpoint, or a run's folder.", show_default="the newest run's"),
    ] = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="NAME.safetensors: NAME-train and NAME-test are written."),
    ] = Path("features.safetensors"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    cache_dtype: options.CacheDtype = None,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    processes: options.Processes = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Write the features of a data set's images, with labels and names, for use elsewhere.

    A safetensors file for each part that the set has. The images are shown as groco knn shows them: whole or centre
    crop, without augmentation. Features are not normalised.
    """
    from groco_cli import devices
    from groco_cli.data.sources import default_root, open_dataset
    from groco_cli.distributed.collectives import failing_together, rank
    from groco_cli.engine.run_folder import checkpoint_at, newest_checkpoint
    from groco_cli.evaluation import comparison
    from groco_cli.evaluation.extraction import choose_extraction
    from groco_cli.evaluation.feature_cache import choose_cache, plain_features
    from groco_cli.evaluation.feature_export import write_features

    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output} is no .safetensors, which is all that is written", "let it end so")
    root = default_root(data_root)
    how = choose_extraction(device, workers, cache=choose_cache(cache, no_cache, root), cache_dtype=cache_dtype)
    path = checkpoint_at(checkpoint) if checkpoint else newest_checkpoint()
    compared = comparison.read_compared(comparison.named_checkpoints([path]))
    encoder, about = compared[0].encoder, compared[0].record()
    dataset = open_dataset(comparison.chosen_data(data, compared), root)
    parts = {name: part for name, part in (("train", dataset.train), ("test", dataset.test)) if part}
    places = {name: output.with_stem(f"{output.stem}-{name}") for name in parts}
    for place in places.values():
        if place.exists() and not force:
            raise UsageError(f"{place} is there already", "name another --output, or type --force to overwrite it")
        check_writable(place)

    facts: dict[str, Any] = about | {"data": dataset.name, "device": devices.describe(how.device)}
    written: dict[str, Any] = {}
    with console.Bar("features", sum(map(len, parts.values()))) as bar:
        for name, source in parts.items():
            found = plain_features(
                encoder,
                source,
                cache=how.cache,
                dtype=how.cache_dtype,
                device=how.device,
                workers=how.workers,
                found=partial(_tell_found, bar, name),
                advance=bar.advance,
            )
            with failing_together():
                if rank() == 0:
                    write_features(places[name], found, source, facts | {"part": name})
            written[name] = {
                "output": str(places[name]),
                "images": len(source),
                "dim": encoder.feature_dim,
                "dtype": how.cache_dtype,
                "classes": len(source.classes) if source.labels is not None else None,
            }

    if rank():
        return  # the first process shows and writes the result
    table = console.table(["part", "file", "images", "dim", "classes"], _rows(written))
    title = console.printable(f"Features of {dataset.name} by {about['checkpoint']}")
    console.result(facts | {"parts": written}, console.titled(title, table, f"on {facts['device']}"), as_json=as_json)


def _rows(written: dict[str, Any]) -> list[list[str]]:
    return [
        [name, part["output"], f"{part['images']:,}", str(part["dim"]), str(part["classes"] or "no labels")]
        for name, part in written.items()
    ]


def _tell_found(bar: console.Bar, name: str, path: Path) -> None:
    bar.note(f"features   {name}: from the cache {path}")
