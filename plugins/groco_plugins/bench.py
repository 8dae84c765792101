"""`groco bench`: measure a part of groco on this machine; the work is `groco_cli.engine.bench_loss`."""

from typing import Annotated

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError, did_you_mean

PARTS = ("loss",)


def bench(
    part: Annotated[str, typer.Argument(help="What to measure: loss.")] = "loss",
    n: Annotated[list[int] | None, typer.Option("--n", help="Elements of a sorted list; may be given again.")] = None,
    anchors: Annotated[int, typer.Option(min=1, help="Lists that are sorted.")] = 2048,
    batch: Annotated[list[int] | None, typer.Option("--batch", help="Images; may be given again.")] = None,
    dim: Annotated[int, typer.Option(min=1, help="Length of a projection.")] = 2048,
    repeats: Annotated[int, typer.Option(min=1, help="Runs that the median is taken of.")] = 10,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Measure what the loss costs here, in time and memory.

    The sorting part is measured against the permutation matrix of the diffsort package (pip install diffsort), the
    whole loss on two views against InfoNCE; forward and backward together, in one process.
    """
    if part not in PARTS:
        raise UsageError(f"no part {part!r} to measure", did_you_mean(part, PARTS) or f"type {', '.join(PARTS)}")
    sizes, batches = n or [11, 32], batch or [256]
    if min(sizes) < 2:
        raise UsageError(f"--n {min(sizes)}: a list to sort has 2 elements or more", "type --n 11")
    if min(batches) < 11:
        raise UsageError(f"--batch {min(batches)}: ten negatives an anchor need 11 images", "type --batch 256")

    import os
    from dataclasses import asdict

    # Read when torch is loaded: its profiler is talkative.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from groco_cli import devices
    from groco_cli.engine.bench_loss import bench_losses, bench_sorting

    chosen = devices.choose_device(device or "auto")
    rows = []
    bar, task = console.progress("bench loss", len(sizes) + len(batches))
    with bar:
        for size in sizes:
            rows += bench_sorting(size, anchors, chosen, repeats)
            bar.advance(task)
        for images in batches:
            rows += bench_losses(images, dim, chosen, repeats)
            bar.advance(task)
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
