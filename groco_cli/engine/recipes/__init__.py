"""Named settings: every row of the paper, and two that learn in minutes on two CPU cores.

Each is a full set of settings; `--recipe NAME` starts from one, and every option given besides overrides it.
"""

from groco_cli.engine.recipes.paper import PAPER
from groco_cli.engine.recipes.recipe import PaperResult, Recipe
from groco_cli.engine.recipes.small import SMALL

__all__ = ["RECIPES", "PaperResult", "Recipe", "default_recipe"]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*SMALL, *PAPER)}


def default_recipe(data: str) -> str:
    """The recipe for a data set where none is named."""
    if data == "digits":
        return "digits"
    return "cifar10-quick" if data in ("cifar10", "cifar100") else "groco-2views-100ep"
