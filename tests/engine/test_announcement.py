"""What a run says of itself: which recipe was taken, and which one to type where that is not for so few images."""

from dataclasses import replace

import pytest

from groco_cli.engine.announcement import announce
from groco_cli.engine.feeding import open_training_set
from groco_cli.engine.objective import build_loss
from groco_cli.engine.run_folder import RunFolder


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("digits", "recipe     digits"),
        (
            "groco-2views-100ep",
            "recipe     groco-2views-100ep, the paper's for ImageNet; for fewer than 100,000 images type "
            "--recipe folder-resnet18",
        ),
    ],
)
def test_the_papers_recipe_on_few_images_is_said_with_another(quick, tmp_path, capsys, recipe: str, line: str):
    settings = replace(quick, recipe=recipe)
    announce(settings, open_training_set(settings.data), 3, build_loss(settings.loss), RunFolder(tmp_path), 0, "cpu")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == line
    assert said[1].startswith("data       digits (embedded): 100 images")
