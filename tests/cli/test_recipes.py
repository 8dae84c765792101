"""`groco recipes` as it is typed: the list, one recipe's file, and what a mistake looks like."""

import json
import re
from pathlib import Path

import pytest

from groco_cli.engine.configuration import resolve
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.recipes.small import SMALL as SMALL_RECIPES

SMALL = {recipe.name for recipe in SMALL_RECIPES}

PAGE = Path(__file__).parents[2] / "docs/recipes.md"


def test_the_list_has_every_recipe_with_the_paper_s_result(call_groco, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = {line.split()[0]: line for line in call_groco("recipes").stdout.splitlines() if line.strip()}
    assert set(RECIPES) <= set(lines)
    for word in ("GroCo, multi-crop", " 100 ", "2×224 + 6×96", " 1024 ", " 24 ", "62.3", "71.8"):
        assert word in lines["groco-multicrop-100ep"]


def test_on_a_narrow_terminal_names_are_whole(call_groco, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call_groco("recipes").stdout
    assert all(re.search(rf"^{re.escape(name)} ", shown, re.MULTILINE) for name in RECIPES)


def test_json_has_everything(call_groco):
    listed = json.loads(call_groco("recipes", "--json").stdout)["recipes"]
    assert list(listed) == list(RECIPES)
    triplet = listed["triplet-margin-inf"]
    assert triplet["paper"]["knn"] == {"1": 47.9, "10": 53.3, "20": 53.8}
    assert triplet["settings"]["loss"]["margin"] == "inf"
    assert triplet["peak_learning_rate"] == 24.0
    assert json.loads(call_groco("recipes", "triplet-margin-inf", "--json").stdout) == triplet


@pytest.mark.parametrize("name", ["digits", "groco-multicrop-400ep", "triplet-margin-inf"])
def test_one_recipe_is_a_file_for_config(call_groco, tmp_path, name):
    file = tmp_path / "mine.toml"
    file.write_text(call_groco("recipes", name).stdout)
    assert resolve(None, file, {}) == RECIPES[name].settings


def test_an_unknown_recipe_is_one_line_with_the_nearest(call_groco):
    failed = call_groco("recipes", "groco-2view-100ep")
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = failed.stderr.strip().splitlines()
    assert "did you mean 'groco-2views-100ep'" in line


def test_a_recipe_of_the_paper_wants_images_to_be_named(call_groco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = call_groco("pretrain", "--recipe", "groco-2views-100ep")
    assert failed.returncode == 2
    assert "--data" in failed.stderr.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_overridden_by_options_and_runs(call_groco, tmp_path):
    options = "--data digits --subset 64 --batch-size 16 --epochs 1 --warmup-epochs 0 --arch resnet10t --image-size 32"
    options += " --local-size 16 --projector-hidden 16 --device cpu --precision fp32 --knn-every 0"
    made = call_groco(
        "pretrain", "--recipe", "simclr-multicrop-100ep", *options.split(), "--output", str(tmp_path / "run"), "--json"
    )
    assert made.returncode == 0, made.stderr
    assert "lars, learning rate 0.3" in made.stderr  # 0.075 · √16
    assert "views      2×32 + 6×16, simclr" in made.stderr


def test_the_page_lists_them_as_they_are():
    page = PAGE.read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in page.splitlines()) if len(cells) > 8}
    assert {name for name in RECIPES if name not in SMALL} == set(rows) - {"recipe", "---"}
    table = (PAGE.parent / "pretrain.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page and f"| `{name}` |" in table for name in SMALL)
    for name in set(rows) & set(RECIPES):
        settings, paper = RECIPES[name].settings, RECIPES[name].paper
        optim = settings.optim
        figures = [f"{paper.knn[20]:.1f}", f"{paper.linear_top1:.1f}"] if paper else ["–", "–"]
        shown = [f"{optim.peak_learning_rate:g}", str(optim.warmup_epochs), *figures, *(paper.tables if paper else [])]
        cells = [cell.strip() for cell in rows[name][4:-1]]
        assert [*cells[:4], *cells[4].split(", ")] == shown + [""] * (not paper), name
