"""Named settings that are known to work, and what they gave.

Each is a full set of settings; `--recipe NAME` starts from one, and every option given besides overrides it.
"""

from dataclasses import dataclass, replace

from groco_cli.engine.settings import (
    DataSettings,
    LossSettings,
    MethodSettings,
    ModelSettings,
    OptimSettings,
    PretrainSettings,
    RunSettings,
    ViewSettings,
)


@dataclass(frozen=True)
class Recipe:
    """Settings with their purpose.

    Args:
        purpose: What it is for, in a line.
        expected: What it gives, where, in what time.
        settings: The settings.
    """

    purpose: str
    expected: str
    settings: PretrainSettings


# The paper's main row. Base learning rate 6.0 per 256 images, warm-up of one epoch (section 4.1).
_PAPER = Recipe(
    purpose="the paper's ResNet-50, 2 × 224, 100 epochs, batch 1,024 (Table 1)",
    expected="ImageNet k-NN (k=20) 60.5 %, linear 69.2 %; the paper took 22 hours on 8 × A6000",
    settings=PretrainSettings(recipe="groco-2views-100ep", data=DataSettings(data="")),
)

# 32-pixel pictures go through the ImageNet stem here, which makes a ResNet-18 16 times cheaper than the small stem.
# The group-ordering loss has small gradients at β = 1, so a short run wants larger steps than the paper's.
_CIFAR10_QUICK = Recipe(
    purpose="a check on real photographs in minutes on two CPU cores: 10,000 CIFAR-10 images, 16 epochs",
    expected="k-NN (k=20, 2,000 test images) about 50 %, above raw pixels (39 %) and the untrained encoder (19 %)",
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

_DIGITS = Recipe(
    purpose="the embedded handwriting, in under two minutes on two CPU cores",
    expected="k-NN (k=20) about 91 %, above raw pixels (74 %) and the untrained encoder (49 %)",
    settings=PretrainSettings(
        recipe="digits",
        data=DataSettings(data="digits"),
        views=ViewSettings(augmentation="digits", image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        model=ModelSettings(arch="resnet10t"),
        optim=OptimSettings(learning_rate=20.0, batch_size=128, epochs=16, warmup_epochs=1),
        run=RunSettings(knn_every=4),
    ),
)

# MoCo v3's settings for ViT-Small (its CONFIG.md: learning rate 1.5e-4, weight decay 0.1, 40 epochs of warm-up, τ 0.2,
# momentum 0.99; twelve attention heads, where timm's ViT-Small has six), with the paper's batch and epochs (Table 6).
_MOCOV3 = PretrainSettings(
    recipe="mocov3-vits-100ep",
    data=DataSettings(data=""),
    views=ViewSettings(augmentation="mocov3"),
    model=ModelSettings(
        arch="vit_small_patch16_224", attention_heads=12, projector_hidden=4096, projector_out=256, projector_layers=3
    ),
    method=MethodSettings(method="mocov3"),
    loss=LossSettings(loss="infonce", temperature=0.2),
    optim=OptimSettings(optimizer="adamw", learning_rate=1.5e-4, weight_decay=0.1, warmup_epochs=40),
)
_MOCOV3_RECIPES = (
    Recipe(
        purpose="MoCo v3 with ViT-Small, 2 × 224, 100 epochs, batch 1,024 (Table 6)",
        expected="ImageNet k-NN (k=20) 66.8 %, linear 70.9 %",
        settings=_MOCOV3,
    ),
    Recipe(
        purpose="the same with GroCo in place of InfoNCE (Table 6)",
        expected="ImageNet k-NN (k=20) 67.5 %, linear 70.8 %",
        settings=replace(_MOCOV3, recipe="groco-mocov3-vits-100ep", loss=LossSettings(loss="groco")),
    ),
)

RECIPES: dict[str, Recipe] = {
    recipe.settings.recipe: recipe for recipe in (_DIGITS, _CIFAR10_QUICK, _PAPER, *_MOCOV3_RECIPES)
}


def default_recipe(data: str) -> str:
    """The recipe for a data set where none is named."""
    if data == "digits":
        return "digits"
    return "cifar10-quick" if data in ("cifar10", "cifar100") else "groco-2views-100ep"
