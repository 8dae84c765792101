"""Why a run diverged: what is said follows from what is known of it."""

import pytest
import torch

from groco_cli import devices
from groco_cli.engine.configuration import override
from groco_cli.engine.divergence import likely_cause
from groco_cli.engine.recipes import RECIPES

CPU = torch.device("cpu")
PER_EPOCH = 10
RATES = "lower it (--lr) or lengthen --warmup-epochs"
IMAGES = "look at the images (groco data), and at mean and std under [views] in settings.toml"


def cause(step: int, **changes: dict[str, object]) -> tuple[str, str]:
    """Of a run of the digits: SGD, learning rate 20 for 256 images, one epoch of warm-up, in fp32."""
    settings = override(RECIPES["digits"].settings, {"run": {"precision": "fp32"}} | changes, "test")
    return tuple(likely_cause(settings, step, PER_EPOCH, CPU))


@pytest.mark.parametrize(("step", "warmup"), [(1, 0), (1, 1), (2, 1)])
def test_before_any_weight_has_changed_it_is_the_images(step, warmup):
    found = cause(step, optim={"warmup_epochs": warmup, "learning_rate": 1e9})
    assert found == ("no weight had changed before, so it is the images or their normalisation", IMAGES)


@pytest.mark.parametrize(
    ("step", "optim", "said"),
    [
        (3, {}, "2, still in its warm-up of 10 steps, most likely too high"),
        (11, {}, "10, perhaps too high"),
        (2, {"warmup_epochs": 0}, "9.9996, perhaps too high"),
        (11, {"learning_rate": 80.0}, "40, 4 times the recipe's, most likely too high"),
        (11, {"learning_rate": 10.0}, "5, perhaps too high"),
        (11, {"batch_size": 256}, "20, perhaps too high"),
        (11, {"batch_size": 64, "lr_scaling": "sqrt"}, "10, 2 times the recipe's, most likely too high"),
        (11, {"optimizer": "adamw"}, "10, as for sgd, most likely too high"),
        (11, {"optimizer": "adamw", "learning_rate": 1e-3}, "0.0005, perhaps too high"),
        (
            6,
            {"learning_rate": 80.0},
            "20, 4 times the recipe's, still in its warm-up of 10 steps, most likely too high",
        ),
    ],
)
def test_later_it_is_the_learning_rate_with_what_speaks_against_it(step, optim, said):
    likely, remedy = cause(step, optim=optim)
    name, _, rest = said.partition(",")
    assert likely == f"the learning rate was {float(name):.3g},{rest}"
    assert remedy == RATES


def test_a_precision_of_16_bits_is_suspected_too(monkeypatch):
    assert cause(11, run={"precision": "bf16"})[1] == f"{RATES}; --precision fp32 shows whether bf16 is to blame"
    monkeypatch.setattr(devices, "choose_precision", lambda *_: "fp16")
    likely, remedy = cause(1, run={"precision": "fp16"})
    assert likely.endswith("their normalisation, or the numbers are too large for fp16")
    assert remedy == f"{IMAGES}, or type --precision bf16"


def test_settings_of_no_recipe_are_compared_with_none():
    settings = override(RECIPES["digits"].settings, {"run": {"precision": "fp32"}}, "test")
    object.__setattr__(settings, "recipe", "")
    assert likely_cause(settings, 11, PER_EPOCH, CPU).likely == "the learning rate was 10, perhaps too high"
