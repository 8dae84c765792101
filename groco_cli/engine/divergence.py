"""What most likely made a run's loss or weights no numbers any more, from what is known of it."""

from dataclasses import replace
from typing import NamedTuple

import torch

from groco_cli import devices
from groco_cli.engine.recipes import RECIPES
from groco_cli.engine.schedule import learning_rate
from groco_cli.engine.settings import PretrainSettings
from groco_cli.wording import counted


class Cause(NamedTuple):
    """Why a run diverged.

    Args:
        likely: What most likely did it.
        remedy: What to type, or to look at.
    """

    likely: str
    remedy: str


def likely_cause(settings: PretrainSettings, step: int, per_epoch: int, device: torch.device) -> Cause:
    """Tell from a run's settings why it diverged.

    Args:
        settings: The run's.
        step: The first step, from 1, whose loss was not finite.
        per_epoch: Steps an epoch.
        device: Where it computes.
    """
    cause = _of_the_images() if _unchanged_before(settings, step) else _of_the_rate(settings, step, per_epoch)
    precision = devices.choose_precision(settings.run.precision, device)
    if precision == "fp16":
        return Cause(
            f"{cause.likely}, or the numbers are too large for fp16", f"{cause.remedy}, or type --precision bf16"
        )
    if precision == "bf16":
        return Cause(cause.likely, f"{cause.remedy}; --precision fp32 shows whether bf16 is to blame")
    return cause


def _unchanged_before(settings: PretrainSettings, step: int) -> bool:
    """Whether no step had changed a weight: with a warm-up the first has rate 0."""
    return step <= (2 if settings.optim.warmup_epochs else 1)


def _of_the_images() -> Cause:
    return Cause(
        "no weight had changed before, so it is the images or their normalisation",
        "look at the images (groco data), and at mean and std under [views] in settings.toml",
    )


def _of_the_rate(settings: PretrainSettings, step: int, per_epoch: int) -> Cause:
    optim = settings.optim
    warmup = optim.warmup_epochs * per_epoch
    rate = learning_rate(
        step - 1, peak=optim.peak_learning_rate, warmup_steps=warmup, total_steps=optim.epochs * per_epoch
    )
    known = [
        _against_the_recipe(settings),
        f"still in its warm-up of {counted(warmup, 'step')}" if step <= warmup else "",
    ]
    said = [f"{rate:.3g}", *filter(None, known), "most likely too high" if any(known) else "perhaps too high"]
    return Cause(f"the learning rate was {', '.join(said)}", "lower it (--lr) or lengthen --warmup-epochs")


def _against_the_recipe(settings: PretrainSettings) -> str:
    """How the learning rate compares with the recipe's, where it is larger, or meant for another optimizer."""
    if settings.recipe not in RECIPES:
        return ""
    optim, usual = settings.optim, RECIPES[settings.recipe].settings.optim
    if optim.optimizer != usual.optimizer:
        return f"as for {usual.optimizer}" if optim.learning_rate == usual.learning_rate else ""
    times = optim.peak_learning_rate / replace(usual, batch_size=optim.batch_size).peak_learning_rate
    return f"{times:.3g} times the recipe's" if times > 1 else ""
