"""`groco toy`: the paper's toy experiment (Figure 4) as a table, as JSON, and as a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console
from groco_cli.errors import UsageError
from groco_cli.files import atomic_write, check_picture
from groco_cli.options import Json

if TYPE_CHECKING:
    from rich.console import Group

    from groco_cli.engine.toy import ToyResult

ROW = "{:z.3f} {:z.3f} {:+z.3f} {:z.3f} {:+z.3f}"


def toy(
    start: Annotated[
        str, typer.Option(metavar="X,X,…", help="Similarities at the start, the positive first.")
    ] = "0.1,0.6,0.45,0.3,0.05",
    beta: Annotated[float, typer.Option(metavar="X", help="GroCo's inverse temperature.")] = 8.0,
    temperature: Annotated[float, typer.Option(metavar="X", help="InfoNCE's temperature.")] = 0.5,
    lr: Annotated[
        float, typer.Option(metavar="LR", help="Learning rate of the gradient descent, on both losses.")
    ] = 0.005,
    margin: Annotated[
        float, typer.Option(metavar="X", help="Stop when the positive is this far above the largest negative.")
    ] = 0.6,
    steps: Annotated[int, typer.Option(metavar="N", help="Most gradient steps of either loss.")] = 20_000,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the figure.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The figure's file, .png, .svg or .pdf by its ending; implies --plot.",
            show_default="toy.png",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what GroCo and InfoNCE do to far negatives: the paper's Figure 4.

    A positive and a few negative similarities are optimised freely, until both losses reach the same margin.

    Raises:
        GrocoError: A loss does not reach the margin, or the picture cannot be written.
        UsageError: An option's value cannot be used.
    """
    picture = output or Path("toy.png") if plot or output else None
    if picture:
        check_picture(picture, "--output")

    from groco_cli.engine.toy import ToySettings, run_toy
    from groco_cli.engine.toy_figure import draw_toy

    settings = ToySettings(_numbers(start), beta, temperature, lr, margin, steps)
    result = run_toy(settings)
    for name, run in (("GroCo", result.groco), ("InfoNCE", result.infonce)):
        if run.margin > 1.05 * margin:
            console.warn(f"{name} overshot the margin ({run.margin:.3f}, not {margin:g}); lower --lr")
    if picture:
        with atomic_write(picture) as temporary:
            draw_toy(result).savefig(temporary, dpi=140)
        console.note(f"figure: {picture}")
    console.result(_record(result, picture), _table(result), as_json=as_json)


def _table(result: "ToyResult") -> "Group":
    settings, groco, infonce = result.settings, result.groco, result.infonce
    start = groco.start[0] - max(groco.start[1:])
    columns = zip(groco.start, groco.final, groco.moved, infonce.final, infonce.moved, strict=True)
    made = console.table(
        ["similarity", "start", "GroCo", "moved", "InfoNCE", "moved"],
        [["positive" if i == 0 else f"n{i}", *ROW.format(*row).split()] for i, row in enumerate(columns)],
        [
            ["margin", f"{start:.3f}", f"{groco.margin:.3f}", "", f"{infonce.margin:.3f}", ""],
            ["steps", "", str(groco.steps), "", str(infonce.steps), ""],
        ],
    )
    title = f"GroCo beta={settings.beta:g}, InfoNCE temperature={settings.temperature:g}, lr={settings.lr:g}"
    return console.titled(title, made)


def _record(result: "ToyResult", picture: Path | None) -> dict[str, Any]:
    runs = {"groco": result.groco, "infonce": result.infonce}
    names = ("steps", "margin", "start", "final", "moved", "farthest_moved")
    return {
        "settings": asdict(result.settings),
        **{loss: {name: getattr(run, name) for name in names} for loss, run in runs.items()},
        "figure": str(picture) if picture else None,
    }


def _numbers(listed: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in listed.split(","))
    except ValueError:
        raise UsageError(f"--start {listed!r} is no list of numbers", "e.g. --start 0.1,0.6,0.3") from None
