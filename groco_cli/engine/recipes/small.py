"""Recipes for small pictures and few of them, which a laptop can run, with what they gave where that was measured."""

from dataclasses import replace

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

_SMALL_RESNET18 = Recipe(
    purpose="pictures of about 32 px",
    note="as cifar10-quick, but of all images, and never mirrored: digits, letters and signs would become others",
    settings=replace(
        _CIFAR10_QUICK.settings,
        recipe="small-resnet18",
        data=DataSettings(data=""),
        views=ViewSettings(augmentation="small", image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), flip=0.0),
    ),
)

# A few thousand photographs: small enough views for a CPU, and many passes, since an epoch has few steps.
_FOLDER_RESNET18 = Recipe(
    purpose="your own photos",
    expected=(
        "tried on 2,000 CIFAR-10 pictures in a folder, with --image-size 32 --epochs 15 --warmup-epochs 1: k-NN (k=20, "
        "1,000 queries) 31.6 %, untrained 21.5 %; its 128 px and 100 epochs are not measured yet"
    ),
    settings=PretrainSettings(
        recipe="folder-resnet18",
        data=DataSettings(data=""),
        views=ViewSettings(augmentation="small", image_size=128),
        model=ModelSettings(arch="resnet18"),
        optim=OptimSettings(learning_rate=40.0, batch_size=128, epochs=100, warmup_epochs=5),
        run=RunSettings(knn_every=10),
    ),
)

_STL10_RESNET18 = Recipe(
    purpose="STL-10, 96 px",
    note="as folder-resnet18, at the pictures' own size; not tried on STL-10",
    settings=replace(
        _FOLDER_RESNET18.settings,
        recipe="stl10-resnet18",
        data=DataSettings(data="stl10-unlabeled"),
        views=ViewSettings(augmentation="small", image_size=96),
    ),
)

SMALL = (_DIGITS, _CIFAR10_QUICK, _SMALL_RESNET18, _STL10_RESNET18, _FOLDER_RESNET18)
