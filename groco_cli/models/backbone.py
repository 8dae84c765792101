"""Backbones by their name in timm or torchvision, without a classifier.

By itself, because importing these two takes seconds, and only who builds a network needs them.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import timm
import torchvision
from torch import nn


def create_backbone(arch: str, image_size: int, attention_heads: int) -> nn.Module:
    """Build a backbone with random weights.

    Args:
        arch: Its name, "timm:" or "torchvision:" in front where both have one.
        image_size: Side of the square it looks at, pixels.
        attention_heads: Of a ViT; 0 for timm's number.

    Returns:
        A module that gives pooled features, [B, feature_dim].

    Raises:
        ValueError: For an unknown name, one without a linear classifier, or heads that it cannot have.
    """
    library, _, name = arch.rpartition(":")
    if library in ("", "timm") and timm.is_model(name):
        return _from_timm(name, image_size, attention_heads)
    if attention_heads:
        raise ValueError(f"the number of attention heads can be set for timm's ViTs; {arch!r} is none")
    if library in ("", "torchvision") and name in _torchvision_classifiers():
        return _from_torchvision(name)
    known = [*timm.list_models(), *_torchvision_classifiers()]
    near = list(dict.fromkeys(get_close_matches(name, known, n=6, cutoff=0.6)))[:3]
    raise ValueError(
        f"unknown architecture {arch!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")
    )


def _from_timm(name: str, image_size: int, attention_heads: int) -> nn.Module:
    heads: dict[str, Any] = {"num_heads": attention_heads} if attention_heads else {}
    try:
        return _first_accepted(
            lambda **options: timm.create_model(name, num_classes=0, **heads, **options),
            {"img_size": image_size, "dynamic_img_size": True},  # transformers: built for one size, shown others too
            {"img_size": image_size},
        )
    except (TypeError, AssertionError) as error:
        if not heads:
            raise
        raise ValueError(f"{name!r} cannot have {attention_heads} attention heads") from error


def _first_accepted(create: Callable[..., nn.Module], *options: dict[str, object]) -> nn.Module:
    """Build with the first of the options that the model has, or with none."""
    for option in options:
        try:
            return create(**option)
        except TypeError:
            continue
    return create()


def _from_torchvision(name: str) -> nn.Module:
    model = _first_accepted(
        lambda **options: torchvision.models.get_model(name, weights=None, **options),
        {"zero_init_residual": True},
        {"aux_logits": False},
    )
    linear = [place for place, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision's {name!r} has no linear classifier to remove")
    model.set_submodule(linear[-1], nn.Identity())
    return model


def _torchvision_classifiers() -> list[str]:
    names: list[str] = torchvision.models.list_models(torchvision.models)
    return names
