"""`groco data`: what groco sees in a data set, and the views it makes of it; or the set as shards."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError
from groco_cli.wording import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from groco_cli.data.sources import Dataset, Source
    from groco_cli.data.survey import Survey

_NOT_SETTINGS = (
    "recipe",
    "config",
    "decode",
    "sheet",
    "rows",
    "show_epochs",
    "to_shards",
    "images_per_shard",
    "as_json",
)
_PARTS = {"train": "training", "test": "held-out"}
_MEASURES = {
    "width": ("width", 1, 0),
    "height": ("height", 1, 0),
    "file_size": ("file, kB", 1000, 1),
    "class_size": ("images per class", 1, 0),
}
_LISTED = 20


def data(
    data: options.DataArgument = None,
    recipe: options.Recipe = None,
    config: options.Config = None,
    decode: Annotated[
        str,
        typer.Option(metavar="N|all", help="Images to decode whole, evenly spread; of all others the head is read."),
    ] = "10000",
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The contact sheet's file, .png; inside the folder of images the default is in the data root.",
            show_default="contact-sheet.png",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Images on the sheet.")] = 5,
    show_epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Epochs whose views are shown of each image.")
    ] = 1,
    augmentation: options.Augmentation = None,
    views: options.Views = None,
    local_views: options.LocalViews = None,
    image_size: options.ImageSize = None,
    local_size: options.LocalSize = None,
    crop_scale: options.CropScale = None,
    local_crop_scale: options.LocalCropScale = None,
    interpolation: options.Interpolation = None,
    brightness: options.Brightness = None,
    contrast: options.Contrast = None,
    saturation: options.Saturation = None,
    hue: options.Hue = None,
    jitter: options.Jitter = None,
    grey: options.Grey = None,
    blur: options.Blur = None,
    blur_sigma: options.BlurSigma = None,
    solarise: options.Solarise = None,
    flip: options.Flip = None,
    view_precision: options.ViewPrecision = None,
    to_shards: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write WebDataset shards to this folder, and do nothing else.", show_default=False
        ),
    ] = None,
    images_per_shard: Annotated[int, typer.Option(metavar="N", min=1, help="Images per shard.")] = 1000,
    on_bad_image: Annotated[
        str | None,
        options.setting(
            "With --to-shards, when an image cannot be decoded: error, or skip to leave it out.", metavar="NAME"
        ),
    ] = None,
    data_root: options.DataRoot = None,
    workers: options.Workers = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Say what groco sees in a data set, and draw the views it becomes.

    Counts images and classes, measures sizes, finds broken files, and writes a contact sheet: images, and beside each
    the views that groco pretrain draws of it with the same options. Or, with --to-shards, writes WebDataset shards.
    """
    given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}

    from groco_cli.data.sources import default_root, open_dataset
    from groco_cli.engine import configuration
    from groco_cli.engine.environment import from_environment

    variables = from_environment(os.environ).under(given | {"recipe": recipe}).only({"recipe", *given})
    with variables.blamed():
        settings = configuration.resolve(
            recipe or variables.recipe, config, configuration.by_section(given | variables.settings)
        )
    workers = None if settings.data.workers < 0 else settings.data.workers
    if not settings.data.data:
        raise UsageError(f"the recipe {settings.recipe} names no images", "type groco data FOLDER")
    if to_shards and sheet:
        raise UsageError("--to-shards does nothing else", "leave out --sheet, or type groco data without --to-shards")
    to_decode, root = _count(decode), default_root(settings.data.data_root)
    if sheet:
        _check_ending(sheet)
    variables.announce()
    dataset = open_dataset(settings.data.data, root)
    if to_shards:
        shards = _written(dataset, to_shards, images_per_shard, settings.data.on_bad_image, workers)
        listed = [[_PARTS[part], counted(len(paths), "shard")] for part, paths in shards.items()]
        names = {part: [str(path) for path in paths] for part, paths in shards.items()}
        console.result({"data": dataset.name, "shards": names}, console.listing(listed), as_json=as_json)
        console.note(f"they are in {to_shards}; now type: groco pretrain --data {shlex.quote(str(to_shards))}")
        return

    from groco_cli.data.contact_sheet import ContactSheet
    from groco_cli.files import atomic_write, check_writable

    picture = _place(sheet, settings.data.data, dataset, root)
    check_writable(picture)
    found = _surveyed(dataset, to_decode, workers)
    drawn = ContactSheet(
        source=dataset.train,
        views=settings.views.draw(),
        global_views=settings.views.views,
        rows=rows,
        epochs=show_epochs,
        seed=settings.run.seed,
        dtype=settings.views.dtype,
        title=f"{dataset.name}, {settings.views.augmentation} augmentations",
    ).draw()
    with atomic_write(picture) as temporary:
        drawn.save(temporary)
    facts = {part: _record(one) for part, one in found.items()}
    console.result(
        {"data": dataset.name, "recipe": settings.recipe, "sheet": str(picture), **facts},
        _shown(dataset.name, found),
        as_json=as_json,
    )
    for part, one in found.items():
        _warn(part, one)
    console.note(f"contact sheet: {picture}")


def _count(decode: str) -> int | None:
    """What --decode says; None for all."""
    if decode == "all":
        return None
    if not decode.isdecimal():
        raise UsageError(f"--decode {decode} is no number", "type --decode 10000 or --decode all")
    return int(decode)


def _check_ending(sheet: Path) -> None:
    if sheet.suffix.lower() != ".png":
        png = shlex.quote(str(sheet.with_suffix(".png")))
        raise UsageError(f"--sheet {sheet} does not end in .png", f"type --sheet {png}")


def _place(sheet: Path | None, data: str, dataset: "Dataset", root: Path) -> Path:
    """Where the sheet goes: never among the images, which it would be one of from then on."""
    from groco_cli.data.sources import FileSource
    from groco_cli.data.sources.folders import becomes_image

    folder = Path(data).expanduser()
    of_files = isinstance(dataset.train, FileSource) and folder.is_dir()
    usual = Path("contact-sheet.png")
    place = sheet or (root / usual if of_files and becomes_image(usual, folder) else usual)
    if of_files and becomes_image(place, folder):
        beside = shlex.quote(str(folder.resolve().parent / place.name))
        raise UsageError(f"the sheet {place} would be one of the images of {data}", f"type --sheet {beside}")
    return place


def _parts(dataset: "Dataset") -> dict[str, "Source"]:
    return {"train": dataset.train} | ({"test": dataset.test} if dataset.test else {})


def _written(
    dataset: "Dataset", out: Path, images_per_shard: int, on_bad_image: str, workers: int | None
) -> dict[str, list[Path]]:
    """The shards of each part: in the folder itself, or in its folders train and val where something is held out."""
    from groco_cli.data.shard_writer import write_shards

    folders = {"train": out / "train", "test": out / "val"} if dataset.test else {"train": out}
    written = {}
    for part, source in _parts(dataset).items():
        with console.Bar(f"writing {_PARTS[part]} images", len(source)) as bar:
            written[part] = write_shards(
                source,
                folders[part],
                images_per_shard,
                on_bad_image=on_bad_image,
                workers=workers,
                advance=bar.advance,
            )
    return written


def _surveyed(dataset: "Dataset", to_decode: int | None, workers: int | None) -> dict[str, "Survey"]:
    from groco_cli.data.survey import survey

    found = {}
    for part, source in _parts(dataset).items():
        with console.Bar(f"looking at {_PARTS[part]} images", len(source)) as bar:
            found[part] = survey(source, decode=to_decode, workers=workers, advance=bar.advance)
    return found


def _record(found: "Survey") -> dict[str, Any]:
    from dataclasses import asdict

    classes = {"names": list(found.classes), "images": found.class_sizes.tolist()} if found.classes else None
    return {
        "images": found.images,
        "classes": classes,
        **found.quantiles(),
        "formats": found.formats,
        "decoded": found.decoded,
        "broken": [asdict(one) for one in found.broken],
    }


def _shown(name: str, found: Mapping[str, "Survey"]) -> "RenderableType":
    """A line per part, then what varies, from the smallest to the largest."""
    columns = ["", "min", "5 %", "median", "95 %", "max"]
    rows = [
        [f"{_PARTS[part]}: {label}", *(f"{value / unit:,.{digits}f}" for value in one.quantiles()[measure].values())]
        for part, one in found.items()
        for measure, (label, unit, digits) in _MEASURES.items()
        if measure in one.quantiles()
    ]
    broken = [each for one in found.values() for each in one.broken]
    said = [f"{_PARTS[part]}: {_summary(one)}" for part, one in found.items()]
    listed = [f"broken: {each.name}: {each.reason}" for each in broken[:_LISTED]]
    more = [f"and {len(broken) - _LISTED:,} more; --json lists all"] if len(broken) > _LISTED else []
    above, below = ("\n".join(map(console.printable, lines)) for lines in ([name, *said], listed + more))
    return console.titled(above, console.table(columns, rows), below)


def _summary(found: "Survey") -> str:
    empty = int((found.class_sizes == 0).sum())
    classes = counted(len(found.classes), "class", "classes") + f" ({empty:,} of them without an image)" * bool(empty)
    formats = ", ".join(f"{count:,} {name}" for name, count in found.formats.items())
    decoded = "all" if found.decoded == found.images else f"{found.decoded:,}, evenly spread,"
    return "; ".join(
        [
            counted(found.images, "image"),
            classes if found.classes else "no labels",
            formats or "in memory",
            f"{decoded} decoded",
            f"{len(found.broken) or 'none'} broken",
        ]
    )


def _warn(part: str, found: "Survey") -> None:
    """Of broken files: what a run would do."""
    from groco_cli.data.bad_images import too_many

    bad = len(found.broken)
    if not bad:
        return
    run = "groco pretrain stops at the first; replace them or move them away"
    if not too_many(bad, found.images):
        run += ", or type --on-bad-image skip there"
    console.warn(f"{bad:,} of {found.images:,} {_PARTS[part]} images cannot be decoded: {run}")
