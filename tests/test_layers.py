"""Imports point one way (the order of `LAYERS`), and start-up stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import what stands before it, and modules of its own.
LAYERS = [
    "early_interrupt",
    "errors",
    "wording",
    "files",
    "devices",
    "console",
    "figures",
    "distributed",
    "options",
    "tables",
    "sorting",
    "data",
    "losses",
    "models",
    "evaluation",
    "engine",
]
NO_UI = {"sorting", "losses", "models"}
UI = {"errors", "console", "options", "tables"}


def imports_of(path: Path) -> set[str]:
    """The parts of groco_cli that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "groco_cli":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("groco_cli.") for alias in node.names), path
    return {name for name in found if not name.startswith("__")}


def files_of(layer: str) -> list[Path]:
    folder = ROOT / "groco_cli" / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below(layer):
    below = set(LAYERS[: LAYERS.index(layer) + 1])
    for path in files_of(layer):
        assert imports_of(path) <= below, path


@pytest.mark.parametrize("layer", sorted(NO_UI))
def test_the_mathematics_knows_nothing_of_the_command_line(layer):
    for path in files_of(layer):
        assert not imports_of(path) & UI, path


def test_losses_and_models_and_data_do_not_know_each_other():
    for layer in ("data", "losses", "models"):
        for path in files_of(layer):
            assert not imports_of(path) & ({"data", "losses", "models"} - {layer}), path


def test_every_part_of_the_library_has_its_layer():
    parts = {
        path.stem for path in (ROOT / "groco_cli").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__", "__main__", "app", "plugins"} == set(LAYERS)


def test_nothing_in_the_library_imports_a_plug_in():
    for path in (ROOT / "groco_cli").rglob("*.py"):
        assert "groco_plugins" not in path.read_text(encoding="utf-8"), path


def test_settings_are_resolved_without_what_takes_seconds_to_import():
    """A mistake in them, a list of the recipes, the start of many processes: none of these builds a network."""
    code = "import sys, groco_cli.engine.configuration; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in found
    assert not {"timm", "torchvision", "sklearn", "matplotlib", "faiss"} & set(found)
