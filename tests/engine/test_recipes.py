"""Recipes: every row of the paper resolves to its settings, typed here from the paper and the released configurations.

Steps are those of ImageNet's 1,281,167 training images.
"""

import dataclasses
import math
from collections import Counter

import pytest
import torch

from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import MemorySource
from groco_cli.data.transforms import Normalisation
from groco_cli.engine.configuration import by_section, resolve, to_toml
from groco_cli.engine.objective import build_loss
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.schedule import learning_rate
from groco_cli.engine.settings import PretrainSettings
from groco_cli.losses import GroCoLoss, InfoNCELoss, MoCoLoss, TripletLoss

# Section 4.1 and the released configurations. Columns: batch, epochs, steps per epoch, steps, warm-up steps,
# peak learning rate. "released" marks what the paper's text does not say or says otherwise.
SCHEDULES = {
    "100": (1024, 100, 1251, 125_100, 1_251, 24.0),
    "200": (1024, 200, 1251, 250_200, 12_510, 12.0),
    "400": (1024, 400, 1251, 500_400, 12_510, 12.0),
    "100 warm": (1024, 100, 1251, 125_100, 12_510, 24.0),  # released, multi-crop
    "256": (256, 100, 5004, 500_400, 5_004, 6.0),
    "512": (512, 100, 2502, 250_200, 2_502, 12.0),
    "simclr": (1024, 100, 1251, 125_100, 12_510, 2.4),  # released: 0.075 · √1,024, ten epochs
    "mocov3": (1024, 100, 1251, 125_100, 50_040, 6e-4),  # MoCo v3's CONFIG.md: 1.5e-4 · batch/256, forty epochs
}
# Released: four views and multi-crop have twice the weight decay where they are trained for longer.
OPTIMISERS = {"sgd": ("sgd", 1e-6), "sgd2": ("sgd", 2e-6), "lars": ("lars", 1e-6), "adamw": ("adamw", 0.1)}

# recipe | schedule | optimiser | views | augmentation | loss | paper: k-NN k = 1, 10, 20; linear top-1, top-5
ROWS = """
groco-2views-100ep      | 100      | sgd   | 2×224      | dino   | groco β=1 N=10     | 55.3 60.3 60.5 69.2 88.4
groco-2views-200ep      | 200      | sgd   | 2×224      | dino   | groco β=1 N=10     | - - 62.9 70.4 -
groco-2views-400ep      | 400      | sgd   | 2×224      | dino   | groco β=1 N=10     | - - 64.0 71.1 -
groco-3views-100ep      | 100      | sgd   | 3×224      | dino   | groco β=1 N=10     | 55.8 61.2 61.6 69.5 88.8
groco-3views-200ep      | 200      | sgd   | 3×224      | dino   | groco β=1 N=10     | - - - - -
groco-3views-400ep      | 400      | sgd   | 3×224      | dino   | groco β=1 N=10     | - - - - -
groco-4views-100ep      | 100      | sgd   | 4×224      | dino   | groco β=1 N=10     | 56.4 61.5 61.8 69.6 88.9
groco-4views-200ep      | 200      | sgd2  | 4×224      | dino   | groco β=1 N=10     | - - 63.6 70.6 -
groco-4views-400ep      | 400      | sgd2  | 4×224      | dino   | groco β=1 N=10     | - - 64.8 71.3 -
groco-multicrop-100ep   | 100 warm | sgd   | 2×224 6×96 | dino   | groco β=1 N=10     | 57.2 62.0 62.3 71.8 90.4
groco-multicrop-200ep   | 200      | sgd2  | 2×224 6×96 | dino   | groco β=1 N=10     | - - 64.2 72.9 -
groco-multicrop-400ep   | 400      | sgd2  | 2×224 6×96 | dino   | groco β=1 N=10     | - - 65.2 73.7 -
simclr-2views-100ep     | simclr   | lars  | 2×224      | simclr | infonce τ=0.1      | 46.0 51.5 51.9 65.7 86.7
simclr-3views-100ep     | simclr   | lars  | 3×224      | simclr | infonce τ=0.1      | 44.7 50.0 50.6 65.8 86.8
simclr-4views-100ep     | simclr   | lars  | 4×224      | simclr | infonce τ=0.1      | 46.3 52.1 52.6 66.5 87.1
simclr-multicrop-100ep  | simclr   | lars  | 2×224 6×96 | simclr | infonce τ=0.1      | 46.6 51.4 52.0 67.2 87.7
mocov3-vits-100ep       | mocov3   | adamw | 2×224      | mocov3 | moco τ=0.2         | 61.5 66.6 66.8 70.9 90.2
groco-mocov3-vits-100ep | mocov3   | adamw | 2×224      | mocov3 | groco β=1 N=10     | 63.1 67.6 67.5 70.8 89.7
triplet-margin-0.8      | 100      | sgd   | 2×224      | dino   | triplet r=0.8 N=10 | 46.8 52.5 52.8 63.9 85.4
triplet-margin-1.6      | 100      | sgd   | 2×224      | dino   | triplet r=1.6 N=10 | 47.9 53.4 53.7 64.2 85.3
triplet-margin-inf      | 100      | sgd   | 2×224      | dino   | triplet r=inf N=10 | 47.9 53.3 53.8 64.3 85.3
groco-beta0.062-n1      | 100      | sgd   | 2×224      | dino   | groco β=0.062 N=1  | - - 52.1 64.5 -
groco-beta0.125-n1      | 100      | sgd   | 2×224      | dino   | groco β=0.125 N=1  | - - 52.2 64.5 -
groco-beta0.25-n1       | 100      | sgd   | 2×224      | dino   | groco β=0.25 N=1   | - - 52.1 64.4 -
groco-beta0.125-n5      | 100      | sgd   | 2×224      | dino   | groco β=0.125 N=5  | - - 59.2 68.7 -
groco-beta0.25-n5       | 100      | sgd   | 2×224      | dino   | groco β=0.25 N=5   | - - 59.6 68.6 -
groco-beta0.5-n5        | 100      | sgd   | 2×224      | dino   | groco β=0.5 N=5    | - - 59.4 68.4 -
groco-beta1-n5          | 100      | sgd   | 2×224      | dino   | groco β=1 N=5      | - - 59.2 68.1 -
groco-beta0.5-n10       | 100      | sgd   | 2×224      | dino   | groco β=0.5 N=10   | - - 60.1 69.1 -
groco-beta2-n10         | 100      | sgd   | 2×224      | dino   | groco β=2 N=10     | - - 60.2 68.7 -
groco-beta1-n20         | 100      | sgd   | 2×224      | dino   | groco β=1 N=20     | - - 54.6 65.5 -
groco-beta2-n20         | 100      | sgd   | 2×224      | dino   | groco β=2 N=20     | - - 55.9 66.0 -
groco-beta4-n20         | 100      | sgd   | 2×224      | dino   | groco β=4 N=20     | - - 58.6 67.5 -
groco-beta8-n20         | 100      | sgd   | 2×224      | dino   | groco β=8 N=20     | - - 59.0 68.0 -
groco-beta16-n20        | 100      | sgd   | 2×224      | dino   | groco β=16 N=20    | - - 53.0 65.8 -
groco-no-preorder       | 100      | sgd   | 2×224      | dino   | groco β=1 N=10     | 54.4 59.2 59.5 68.9 88.2
groco-batch256          | 256      | sgd   | 2×224      | dino   | groco β=1 N=10     | 52.4 57.2 57.2 67.8 88.1
groco-batch512          | 512      | sgd   | 2×224      | dino   | groco β=1 N=10     | 53.1 57.9 58.2 68.2 88.0
groco-false-negatives   | 100      | sgd   | 2×224      | dino   | groco β=1 N=10     | 51.5 56.6 56.9 67.6 87.7
"""
GOLDEN = {row[0]: row[1:] for row in ([cell.strip() for cell in line.split("|")] for line in ROWS.strip().splitlines())}
PROJECTORS = {"simclr": ("resnet50", 2048, 128, 3), "mocov3": ("vit_small_patch16_224", 4096, 256, 3)}
PROJECTORS["dino"] = ("resnet50", 2048, 2048, 3)


def steps_an_epoch(settings: PretrainSettings) -> int:
    """Batches that the loader makes of as many images as ImageNet has."""
    images = torch.zeros(1, dtype=torch.uint8).expand(1_281_167, 3, 1, 1)
    loader = ViewLoader(
        MemorySource(images, None, (), "as many as ImageNet's"),
        settings.views.draw(),
        batch_size=settings.optim.batch_size,
        order=shuffled(len(images), 0),
        normalisation=Normalisation(mean=settings.views.mean, std=settings.views.std),
        seed=0,
        device=torch.device("cpu"),
        workers=0,
    )
    return len(loader)


def described(settings: PretrainSettings) -> str:
    """The loss that is built of the settings."""
    loss = build_loss(settings.loss, settings.method.method)
    if isinstance(loss, GroCoLoss):
        assert (loss.variant, loss.stop_gradient) == ("paper", True)
        return f"groco β={loss.beta:g} N={loss.num_negatives}"
    if isinstance(loss, TripletLoss):
        assert loss.stop_gradient
        return f"triplet r={loss.margin:g} N={loss.num_negatives}"
    assert isinstance(loss, InfoNCELoss | MoCoLoss)
    assert loss.num_negatives is None
    return f"{'moco' if isinstance(loss, MoCoLoss) else 'infonce'} τ={loss.temperature:g}"


def test_every_recipe_but_the_small_ones_is_a_row_and_every_row_a_recipe():
    small = {"digits", "cifar10-quick", "small-resnet18", "stl10-resnet18", "folder-resnet18"}
    assert [name for name in RECIPES if name not in small] == list(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_of_the_paper_resolves_to_its_settings(name):
    schedule, optimiser, views, augmentation, loss, _ = GOLDEN[name]
    batch, epochs, per_epoch, steps, warmup, peak = SCHEDULES[schedule]
    settings = resolve(name, None, {})
    optim = settings.optim
    assert (optim.batch_size, optim.epochs) == (batch, epochs)
    assert steps_an_epoch(settings) == per_epoch
    assert (optim.epochs * per_epoch, optim.warmup_epochs * per_epoch) == (steps, warmup)
    assert optim.peak_learning_rate == pytest.approx(peak, rel=1e-12)
    rates = [
        learning_rate(step, peak=optim.peak_learning_rate, warmup_steps=warmup, total_steps=steps)
        for step in (0, warmup // 2, warmup, (warmup + steps) // 2)
    ]
    assert rates == pytest.approx([0, peak * (warmup // 2) / warmup, peak, peak / 2], rel=1e-4)
    assert (optim.optimizer, optim.weight_decay) == OPTIMISERS[optimiser]
    assert optim.momentum == 0.9

    sizes = Counter(view.size for view in settings.views.draw())
    assert " ".join(f"{count}×{size}" for size, count in sizes.items()) == views
    assert settings.views.views == sizes[224]  # only these are positives
    assert settings.views.augmentation == augmentation
    assert described(settings) == loss
    model = settings.model
    shape = (model.arch, model.projector_hidden, model.projector_out, model.projector_layers)
    assert shape == PROJECTORS[augmentation]
    assert settings.method.method == ("mocov3" if augmentation == "mocov3" else "siamese")
    assert settings.data.class_mates == (3.0 if name == "groco-false-negatives" else 0.0)
    assert settings.loss.preorder is (False if name == "groco-no-preorder" else None)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_s_result_is_what_the_paper_prints(name):
    paper = RECIPES[name].paper
    printed = [None if word == "-" else float(word) for word in GOLDEN[name][-1].split()]
    if paper is None:
        assert printed == [None] * 5
    else:
        assert [paper.knn.get(k) for k in (1, 10, 20)] + [paper.linear_top1, paper.linear_top5] == printed


def test_the_retrieval_and_transfer_rows_are_those_of_400_epochs():
    paper = RECIPES["groco-2views-400ep"].paper
    assert list(paper.retrieval.values()) == [29.37, 7.11, 54.95, 26.26]
    assert sum(paper.transfer.values()) / 11 == pytest.approx(63.14, abs=0.005)  # the average that Table 3 prints


@pytest.mark.parametrize(
    ("name", "batch", "peak"),
    [
        ("groco-2views-100ep", 4096, 96.0),  # linear: 6 · 4,096/256
        ("groco-4views-100ep", 4096, 48.0),  # √: 0.75 · √4,096
        ("simclr-2views-100ep", 256, 1.2),  # √: 0.075 · √256
        ("groco-mocov3-vits-100ep", 4096, 2.4e-3),  # linear: MoCo v3's own batch
    ],
)
def test_another_batch_moves_the_learning_rate_by_the_recipe_s_rule(name, batch, peak):
    settings = resolve(name, None, by_section({"batch_size": batch}))
    assert settings.optim.peak_learning_rate == pytest.approx(peak)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_for_and_survives_its_file(name, tmp_path):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.purpose
    assert recipe.paper or recipe.expected or recipe.note
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(recipe.settings))
    assert resolve(None, file, {}) == recipe.settings
    changed = resolve(None, file, by_section({"epochs": 3, "warmup_epochs": 0}))
    assert (changed.optim.epochs, changed.recipe) == (3, name)


def test_no_two_recipes_are_the_same():
    nameless = [dataclasses.replace(recipe.settings, recipe="") for recipe in RECIPES.values()]
    assert all(first != second for i, first in enumerate(nameless) for second in nameless[:i])
    assert math.isinf(RECIPES["triplet-margin-inf"].settings.loss.margin)
