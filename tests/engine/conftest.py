"""A run small enough for a test."""

from pathlib import Path

import pytest
from PIL import Image

from groco_cli.engine import curves, trainer
from groco_cli.engine.configuration import override
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.settings import PretrainSettings


@pytest.fixture
def tiny(tmp_path: Path) -> PretrainSettings:
    """Three epochs of three steps on 100 digits, in fp32 on the CPU."""
    return override(
        RECIPES["digits"].settings,
        {
            "data": {"subset": 100},
            "model": {"projector_hidden": 32, "projector_out": 16},
            "loss": {"num_negatives": 5},
            "optim": {"batch_size": 32, "epochs": 3},
            "run": {
                "output": str(tmp_path / "run"),
                "device": "cpu",
                "precision": "fp32",
                "log_every": 1,
                "knn_every": 0,
            },
        },
        "test",
    )


@pytest.fixture
def quick(tiny: PretrainSettings, monkeypatch: pytest.MonkeyPatch) -> PretrainSettings:
    """Two epochs of three steps of the smallest network there is, without scores and picture."""
    monkeypatch.setattr(trainer, "knn_monitor", lambda *_: None)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    changes = {"model": {"arch": "test_resnet"}, "optim": {"epochs": 2, "learning_rate": 0.1}}
    return override(tiny, changes, "test")


@pytest.fixture
def files(quick, tmp_path) -> PretrainSettings:
    """A quick run on 96 pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(96):
        Image.effect_noise((40, 36), 60 + number).convert("RGB").save(folder / f"{number}.png")
    data = {"data": str(folder), "subset": 0, "workers": 0}
    return override(quick, {"data": data, "views": {"augmentation": "small"}}, "test")
