"""The paper's rows: every figure is in its text, and in the recipes that are its rows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groco_cli.data.sources import Dataset, MemorySource
from groco_cli.engine.recipes import RECIPES
from groco_cli.evaluation.paper import RETRIEVAL, ROWS, imagenet_rows, is_imagenet, row_of_recipe
from groco_cli.models import EncoderMetadata

EPOCHS = (100, 200, 400)


@pytest.fixture(scope="module")
def text() -> list[str]:
    path = Path(__file__).parents[3] / "shared/paper/groco-iccv2023.txt"
    if not path.exists():
        pytest.skip(f"no {path}")
    return path.read_text(encoding="utf-8").splitlines()


def lines_of(text: list[str], method: str, views: str) -> list[list[str]]:
    """The figures behind a method's name and views, in every table."""
    triplet = method.removeprefix("Triplet, margin ")
    name, before = (method, f" {views.replace(' ', '')} ")
    if triplet != method:
        name, before = f"Triplet Loss (margin={triplet.replace('∞', '+∞')})", ") "
    lines = [line.replace(" + ", "+") for line in text if line.startswith(f"{name} ")]
    return [line.partition(before)[2].split() for line in lines if before in line]


def test_every_figure_stands_in_the_papers_text_in_its_place(text):
    checked = 0
    for row in ROWS:
        lines = lines_of(text, row.method, row.views)
        assert lines, row.title
        by_epochs = [line for line in lines if len(line) == 3]
        of_100 = [line for line in lines if len(line) == 5]
        for figure, place in ((row.knn.get(20), 2), (row.linear[0] if row.linear else None, 3)):
            if figure is not None:
                at_epochs = any(line[EPOCHS.index(row.epochs)] == figure for line in by_epochs)
                at_place = row.epochs == 100 and any(line[place] == figure for line in of_100)
                assert at_epochs or at_place, (row.title, figure)
                checked += 1
        if len(row.knn) == 3:
            assert [*row.knn.values(), *row.linear] in of_100, row.title
    assert checked > 60


def test_the_paper_prints_no_further_row_of_groco(text):
    printed = [line for line in text if line.startswith("GroCo (ours) ") and "×224" in line]
    three = [line.split() for line in printed if line.split()[2] == "1024"]
    figures = [figure for line in three for figure in line[-3:]]
    ours = [row for row in ROWS if row.method == "GroCo" and row.backbone == "ResNet-50" and row.views[0] != "3"]
    assert sorted(figures) == sorted([row.knn[20] for row in ours] + [row.linear[0] for row in ours])


def test_table_2_is_the_papers(text):
    for method in RETRIEVAL["roxford5k"]:
        figures = [RETRIEVAL[name][method][setup] for name in ("roxford5k", "rparis6k") for setup in ("medium", "hard")]
        name, _, epochs = method.removesuffix(" epochs").partition(", ")
        assert any(
            line.startswith(name) and f" {epochs} " in line and line.endswith(f"2×224 {' '.join(figures)}")
            for line in text
        ), method


def test_rows_and_recipes_agree():
    named = {row.recipe: row for row in ROWS if row.recipe}
    assert {name for name, recipe in RECIPES.items() if recipe.paper and recipe.paper.tables[0][0] != "8"} == set(named)
    for name, row in named.items():
        recipe = RECIPES[name]
        assert {k: float(score) for k, score in row.knn.items()} == recipe.paper.knn
        expected = [recipe.paper.linear_top1, recipe.paper.linear_top5]
        assert [float(score) for score in row.linear] == [score for score in expected if score is not None]
        assert (row.epochs, row.batch_size) == (recipe.settings.optim.epochs, recipe.settings.optim.batch_size)
    ours = RECIPES["groco-2views-400ep"].paper.retrieval
    for name, methods in RETRIEVAL.items():
        for setup, ap in methods["GroCo, 400 epochs"].items():
            assert float(ap) == ours[f"{name} {setup}"]


def test_rows_are_of_the_backbones_compared():
    small = EncoderMetadata(arch="vit_small_patch16_224")
    large = EncoderMetadata(arch="timm:resnet50")
    assert {row.backbone for row in imagenet_rows([small])} == {"ViT-S"}
    assert {row.backbone for row in imagenet_rows([large, EncoderMetadata(arch="resnet18")])} == {"ResNet-50"}
    assert imagenet_rows([EncoderMetadata(arch="resnet18")]) == list(ROWS)
    assert imagenet_rows([small, large]) == list(ROWS)


def test_a_recipe_names_its_row():
    about = EncoderMetadata(arch="resnet50", settings='recipe = "triplet-margin-1.6"\n[optim]\nepochs = 3\n')
    assert row_of_recipe(about).knn == {1: "47.9", 10: "53.4", 20: "53.7"}
    for other in ("", 'recipe = ""', 'recipe = "groco-batch256"', "no TOML"):
        assert row_of_recipe(replace(about, settings=other)) is None


def test_imagenet_is_known_by_its_name_its_classes_or_its_size():
    source = MemorySource(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 999]), ())
    numbers, wordnet = (tuple(form.format(i) for i in range(1000)) for form in ("{}", "n{:08}"))

    def dataset(classes: tuple[str, ...], name: str = "photos") -> Dataset:
        part = replace(source, classes=classes)
        return Dataset(name, part, part)

    assert is_imagenet(dataset(wordnet))
    assert is_imagenet(dataset(numbers, "imagenet"))
    assert not is_imagenet(dataset(numbers))
    assert not is_imagenet(dataset(wordnet[:100]))
    assert not is_imagenet(replace(dataset(wordnet), test=None))
