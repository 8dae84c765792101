"""Recipes that learn in minutes on two CPU cores, with what they gave there."""

from groco_cli.engine.recipes.recipe import Recipe
from groco_cli.engine.settings import (
    DataSettings,
    ModelSettings,
    OptimSettings,
    PretrainSettings,
    RunSettings,
    ViewSettings,
)

_DIGITS = Recipe(
    purpose="the embedded digits",
    expected="in some two minutes on two CPU cores: k-NN (k=20) about 91 %; raw pixels 74 %, untrained 49 %",
    settings=PretrainSettings(
        recipe="digits",
        data=DataSettings(data="digits"),
        views=ViewSettings(augmentation="digits", image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        model=ModelSettings(arch="resnet10t"),
        optim=OptimSettings(learning_rate=20.0, batch_size=128, epochs=16, warmup_epochs=1),
        run=RunSettings(knn_every=4),
    ),
)

# 32-pixel pictures go through the ImageNet stem here, which makes a ResNet-18 16 times cheaper than the small stem.
# The group-ordering loss has small gradients at β = 1, so a short run wants larger steps than the paper's.
_CIFAR10_QUICK = Recipe(
    purpose="10,000 of CIFAR-10",
    expected="in four minutes on two CPU cores: k-NN (k=20, 2,000 queries) about 50 %; raw pixels 39 %, untrained 19 %",
    settings=PretrainSettings(
        recipe="cifar10-quick",
        data=DataSettings(data="cifar10", subset=10_000),
        views=ViewSettings(
            augmentation="small", image_size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
        ),
        model=ModelSettings(arch="resnet18"),
        optim=OptimSettings(learning_rate=40.0, batch_size=256, epochs=16, warmup_epochs=1),
        run=RunSettings(knn_every=4),
    ),
)

SMALL = (_DIGITS, _CIFAR10_QUICK)
