"""`groco bench loss`, `data`, `train`: measure a part of groco here; the work is `groco_cli.engine.bench_*`."""

from typing import Annotated

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError
from groco_cli.wording import counted


def loss(
    n: Annotated[
        list[int] | None,
        typer.Option("--n", metavar="N", help="Elements per list; may be given again.", show_default="11, 32"),
    ] = None,
    anchors: Annotated[int, typer.Option(metavar="N", min=1, help="Lists to sort.")] = 2048,
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", metavar="N", help="Images per step; may be given again.", show_default="256"),
    ] = None,
    dim: Annotated[int, typer.Option(metavar="N", min=1, help="Dimension of the projections.")] = 2048,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Runs that the median is taken of.")] = 10,
    compiled: Annotated[bool, typer.Option("--compile", help="Measure torch.compile of the sorting part too.")] = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure what the loss costs here, in time and memory.

    The sorting part is measured against the permutation matrix of the diffsort package (pip install diffsort), the
    whole loss on two views against InfoNCE; forward and backward together, in one process.
    """
    sizes, batches = n or [11, 32], batch_size or [256]
    if min(sizes) < 2:
        raise UsageError(f"--n {min(sizes)}: a list to sort has 2 elements or more", "type --n 11")
    if min(batches) < 11:
        raise UsageError(
            f"--batch-size {min(batches)}: ten negatives per anchor need 11 images", "type --batch-size 256"
        )

    import os
    from dataclasses import asdict

    # Read when torch is loaded: its profiler and compiler are talkative.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_LOGS", "-all")

    from groco_cli import devices
    from groco_cli.engine.bench_loss import bench_losses, bench_sorting

    chosen = devices.choose_device(device)
    rows = []
    with console.Bar("bench loss", len(sizes) + len(batches)) as bar:
        for size in sizes:
            rows += bench_sorting(size, anchors, chosen, repeats, compiled=compiled)
            bar.advance()
        for images in batches:
            rows += bench_losses(images, dim, chosen, repeats)
            bar.advance()
    first = {(row.part, row.size): row for row in reversed(rows)}  # groco's own, which the others are compared with
    table = console.table(
        ["part", "size", "form", "ms", "×", "peak MB", "×"],
        [
            [
                row.part,
                f"n = {row.size}" if row.part == "sorting" else f"B = {row.size}",
                row.name,
                f"{row.seconds * 1e3:.2f}",
                f"{row.seconds / first[row.part, row.size].seconds:.2f}",
                f"{row.peak_bytes / 1e6:.1f}",
                f"{row.peak_bytes / first[row.part, row.size].peak_bytes:.2f}",
            ]
            for row in rows
        ],
    )
    facts = {"device": devices.describe(chosen), "anchors": anchors, "dim": dim, "repeats": repeats}
    shown = console.titled(
        f"Forward and backward in float32: sorting {anchors:,} lists, losses on two views",
        table,
        f"× is times groco's first row; projections of {dim}; {facts['device']}; median of {repeats}",
    )
    console.result({**facts, "measurements": [asdict(row) for row in rows]}, shown, as_json=as_json)


def data(
    data: Annotated[
        str | None, typer.Argument(metavar="PATH|NAME", help="Images in files.", show_default="generated JPEGs")
    ] = None,
    augmentation: Annotated[str, typer.Option(metavar="NAME", help="Augmentations: dino, mocov3 or simclr.")] = "dino",
    views: Annotated[int, typer.Option(metavar="N", min=1, help="Global views per image.")] = 2,
    local_views: Annotated[int, typer.Option(metavar="N", min=0, help="Local views per image.")] = 0,
    image_size: Annotated[int, typer.Option(metavar="N", min=8, help="Side of a global view, pixels.")] = 224,
    local_size: Annotated[int, typer.Option(metavar="N", min=8, help="Side of a local view, pixels.")] = 96,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Passes that the median is taken of.")] = 3,
    device: options.Device = "auto",
    data_root: options.DataRoot = None,
    as_json: options.Json = False,
) -> None:
    """Measure how fast images become views here, stage by stage and against the usual pipeline.

    One core does everything but the photometric part, which runs on the device. "official" is the pipeline of the
    authors' released code, built from torchvision's classes on Pillow images, in the same process.
    """
    from dataclasses import asdict
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from groco_cli import devices
    from groco_cli.data.sources import default_root, open_dataset
    from groco_cli.engine.bench_data import bench_data, generated_jpegs
    from groco_cli.engine.settings.views import ViewSettings

    if augmentation not in ("dino", "mocov3", "simclr"):
        raise UsageError(f"--augmentation {augmentation}: has no such pipeline", "type dino, mocov3 or simclr")
    chosen = devices.choose_device(device)
    wanted = ViewSettings(
        augmentation=augmentation,
        views=views,
        local_views=local_views,
        image_size=image_size,
        local_size=local_size,
    )
    with TemporaryDirectory() as folder, console.Bar("bench data", 6 * (repeats + 1)) as bar:
        root = default_root(data_root)
        source = open_dataset(data, root).train if data else generated_jpegs(Path(folder))
        stages = bench_data(source, wanted.draw(), device=chosen, repeats=repeats, advance=bar.advance)
    taken = {stage.name: stage for stage in stages}
    ratios = {name: taken["official"].milliseconds / taken[name].milliseconds for name in ("worker", "all")}
    table = console.table(
        ["stage", "ms per image", "images/s", "× official"],
        [
            [
                _STAGES[stage.name],
                f"{stage.milliseconds:.2f}",
                f"{stage.images_per_second:,.0f}",
                f"{ratios[stage.name]:.2f}" if stage.name in ratios else "",
            ]
            for stage in stages
        ],
    )
    facts = {
        "data": data or "generated JPEGs",
        "images": len(source),
        "views": str(wanted),
        "augmentation": augmentation,
        "device": devices.describe(chosen),
        "repeats": repeats,
    }
    shown = console.titled(
        f"{facts['data']}: {counted(len(source), 'image')} to {facts['views']} {augmentation} views, on one core",
        table,
        f"photometric part on {facts['device']}, one thread; median of {repeats} passes",
    )
    rows = [asdict(stage) | {"images_per_second": stage.images_per_second} for stage in stages]
    console.result({**facts, "stages": rows, "times_official": ratios}, shown, as_json=as_json)


def train(
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="Whose step to measure; `groco recipes` lists them.")
    ] = "cifar10-quick",
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH|NAME", help="Images to feed it with.", show_default="generated on the device"),
    ] = None,
    arch: options.Arch = None,
    forward: options.Forward = None,
    batch_size: options.BatchSize = None,
    micro_batch: options.MicroBatch = None,
    views: options.Views = None,
    image_size: options.ImageSize = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Steps that each figure is taken of.")] = 10,
    device: options.DeviceSetting = None,
    precision: options.Precision = None,
    compile: options.Compile = None,
    data_root: options.DataRoot = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Measure a training step here, part by part, and against a bare loop of torch.

    Three passes: the loop as it trains; its parts, each waited for; and groco's step in turn with that of a bare loop
    with the same networks, loss, optimiser, precision and views. That has no micro-batches: with --micro-batch groco's
    step is measured alone. With --compile all are compiled, and groco's step is taken uncompiled too: the result says
    after how many steps compiling has paid for itself.
    """
    changes = {name: value for name, value in locals().items() if name not in ("recipe", "repeats", "as_json")}

    from dataclasses import asdict

    from groco_cli.engine import configuration
    from groco_cli.engine.bench_train import bench_train, passes

    settings = configuration.resolve(recipe, None, configuration.by_section(changes))
    with console.Bar("bench train", passes(repeats)) as bar:
        speed = bench_train(settings, generated=data is None, repeats=repeats, advance=bar.advance)
    batch = settings.optim.batch_size
    facts = {
        "recipe": recipe,
        "arch": settings.model.arch,
        "views": str(settings.views),
        "forward": settings.method.forward,
        "batch_size": batch,
        "micro_batch": settings.optim.micro_batch,
        "compile": settings.run.compile,
        "data": speed.data,
        "device": speed.device,
        "precision": speed.precision,
        "repeats": repeats,
    }
    made, shares, waited = speed.compilation, speed.shares(), sum(speed.parts.values())
    rows = [[part, f"{speed.parts[part] * 1e3:.1f}", f"{share:.1%}", ""] for part, share in shares.items()]
    whole = {
        "= one after the other": waited,
        "groco's step": speed.step,
        "groco's, not compiled": made.uncompiled if made else None,
        "the bare loop's": speed.bare,
    }
    rows += [[name, f"{each * 1e3:.1f}", "", f"{batch / each:,.1f}"] for name, each in whole.items() if each]
    rows.append(["the loop as it trains", "", "", f"{speed.pace.images_per_second:,.1f}"])
    remarks = [
        f"groco's step takes {speed.ratio:.3f} times the bare loop's" if speed.ratio else "",
        str(made) if made else "",
        f"training waits {speed.pace.waiting:.0%} of the time for data",
        speed.device + (f"; {speed.peak_bytes / 1e9:.2f} GB of its memory at most" if speed.peak_bytes else ""),
        f"medians of {repeats}",
    ]
    shown = console.titled(
        f"{recipe}: {facts['arch']}, {facts['views']}, batch {batch}, {speed.precision}, {speed.data}",
        console.table(["part", "ms per step", "share", "images/s"], rows),
        "; ".join(remark for remark in remarks if remark),
    )
    measured = {
        "parts": {part: {"seconds": speed.parts[part], "share": share} for part, share in shares.items()},
        "step": {"groco_seconds": speed.step, "bare_seconds": speed.bare, "ratio": speed.ratio},
        "compilation": asdict(made) | {"pays_after": made.pays_after} if made else None,
        "images_per_second": speed.pace.images_per_second,
        "waiting": speed.pace.waiting,
        "peak_bytes": speed.peak_bytes,
    }
    console.result(facts | measured, shown, as_json=as_json)


_STAGES = {
    "read": "read the file",
    "decode": "decode it",
    "crop": "crop all views",
    "worker": "= in the workers",
    "photometric": "photometric",
    "all": "all of it",
    "official": "official pipeline",
}
