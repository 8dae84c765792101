"""Named settings: every row of the paper, and some for small pictures and few of them.

Each is a full set of settings; `--recipe NAME` starts from one, and every option given besides overrides it.
"""

from groco_cli.data.sources.named import ALIASES, NAMED
from groco_cli.engine.recipes.paper import PAPER
from groco_cli.engine.recipes.recipe import PaperResult, Recipe
from groco_cli.engine.recipes.small import SMALL

__all__ = ["FEW_IMAGES", "RECIPES", "PaperResult", "Recipe", "better_recipe", "default_recipe"]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*SMALL, *PAPER)}

_OF_THE_PAPER, _OF_PHOTOS = "groco-2views-100ep", "folder-resnet18"
FEW_IMAGES = 100_000  # of which the paper's 100 epochs would be some 10,000 steps instead of its 125,100
_DEFAULTS = {
    **dict.fromkeys(NAMED, _OF_PHOTOS),
    **dict.fromkeys(("imagenet", "places365"), _OF_THE_PAPER),
    **dict.fromkeys(("svhn", "mnist", "fashion-mnist", "kmnist", "usps", "gtsrb"), "small-resnet18"),
    **dict.fromkeys(("stl10", "stl10-unlabeled"), "stl10-resnet18"),
    **dict.fromkeys(("cifar10", "cifar100"), "cifar10-quick"),
    "digits": "digits",
}


def default_recipe(data: str) -> str:
    """The recipe for a data set where none is named: of named sets by their pictures, else the paper's.

    Args:
        data: What `--data` says.
    """
    return _DEFAULTS.get(ALIASES.get(data, data), _OF_THE_PAPER)


def better_recipe(recipe: str, images: int) -> str:
    """The recipe to propose instead of the paper's usual one where there are few images; "" for no other.

    Args:
        recipe: What was chosen.
        images: Training images.
    """
    return _OF_PHOTOS if recipe == _OF_THE_PAPER and images < FEW_IMAGES else ""
