"""`groco recipes`: the named settings of `groco pretrain`, as a table, as JSON, and one of them as TOML."""

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groco_cli import console
from groco_cli.errors import UsageError, did_you_mean
from groco_cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from groco_cli.engine.recipes import Recipe

_COLUMNS = ("recipe", "what", "epochs", "views", "batch", "lr", "k-NN", "linear")
_CAPTION = "k-NN (k = 20) and linear: top-1 on ImageNet as the paper prints it. lr: after warm-up, for the whole batch"


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One of them, in full: TOML for --config.", show_default="a list of all"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes of groco pretrain with the paper's results; or print one's settings.

    `groco recipes NAME > my.toml` makes a file to change, for `groco pretrain --config my.toml`.

    Raises:
        UsageError: There is no such recipe.
    """
    from groco_cli.engine.configuration import to_toml
    from groco_cli.engine.recipes import RECIPES

    if name is None:
        everything = {"recipes": {recipe.name: _record(recipe) for recipe in RECIPES.values()}}
        table = _table([_row(recipe) for recipe in RECIPES.values()])
        console.result(everything, console.titled("Recipes of groco pretrain", table, _CAPTION), as_json=as_json)
    elif name not in RECIPES:
        raise UsageError(f"no recipe {name!r}", did_you_mean(name, RECIPES) or "'groco recipes' lists them")
    elif as_json:
        console.result(_record(RECIPES[name]), "", as_json=True)
    else:
        print("".join(f"# {line}\n" for line in _about(RECIPES[name])) + to_toml(RECIPES[name].settings), end="")


def _table(rows: list[list[str]]) -> "Table":
    """Without lines between its columns, so that names are whole on 80 columns."""
    table = console.table(_COLUMNS, rows)
    table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False
    table.columns[0].min_width = max(len(name) for name, *_ in rows)
    table.columns[1].justify = "left"
    return table


def _row(recipe: "Recipe") -> list[str]:
    views, optim, paper = recipe.settings.views, recipe.settings.optim, recipe.paper
    return [
        recipe.name,
        recipe.purpose,
        str(optim.epochs),
        str(views),
        str(optim.batch_size),
        f"{optim.peak_learning_rate:g}",
        f"{paper.knn[20]:.1f}" if paper else "–",
        f"{paper.linear_top1:.1f}" if paper else "–",
    ]


def _about(recipe: "Recipe") -> list[str]:
    """What there is to say about a recipe, in lines."""
    lines = [f"{recipe.name}: {recipe.purpose}"]
    if recipe.paper:
        knn = ", ".join(f"{score:.1f} % (k={k})" for k, score in recipe.paper.knn.items())
        lines.append(
            f"Paper, Table {', '.join(recipe.paper.tables)}: k-NN {knn}; linear {recipe.paper.linear_top1:.1f} %"
        )
    return lines + [f"{label}: {text}" for label, text in (("Gives", recipe.expected), ("Note", recipe.note)) if text]


def _record(recipe: "Recipe") -> dict[str, Any]:
    settings = dataclasses.asdict(recipe.settings)
    return {
        "purpose": recipe.purpose,
        "expected": recipe.expected or None,
        "note": recipe.note or None,
        "peak_learning_rate": recipe.settings.optim.peak_learning_rate,
        "paper": dataclasses.asdict(recipe.paper) if recipe.paper else None,
        "settings": {
            section: {key: _plain(value) for key, value in values.items()}
            for section, values in settings.items()
            if section != "recipe"
        },
    }


def _plain(value: Any) -> Any:
    """JSON has no infinity (the triplet's margin): it becomes "inf"."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value
