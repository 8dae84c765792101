"""The settings of a pre-training run: frozen, checked once here, trusted everywhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from groco_cli.data.loader import ON_BAD_IMAGE
from groco_cli.data.views import AUGMENTATIONS, View
from groco_cli.devices import PRECISIONS
from groco_cli.engine.every import Every
from groco_cli.engine.methods import METHODS
from groco_cli.engine.optim import OPTIMIZERS
from groco_cli.engine.sinks import SINKS
from groco_cli.errors import UsageError, did_you_mean
from groco_cli.losses.groco import VARIANTS
from groco_cli.models.encoder import STEMS

LOSSES = ("groco", "infonce", "triplet")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images.

    Args:
        data: What `--data` names.
        data_root: Where named sets are kept; "" for the usual place.
        subset: Only the first so many training images; 0 for all.
        workers: Processes that decode; -1 to take them from the cores.
        on_bad_image: "error", or "skip" to let another image take a bad one's place.
        class_mates: Images of its own class that each image meets in its batch (Table 8d: 3); 0 for what chance gives.
    """

    data: str = "digits"
    data_root: str = ""
    subset: int = 0
    workers: int = -1
    on_bad_image: str = "error"
    class_mates: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """Which views of them; what is None is the augmentation's own, as published.

    Args:
        augmentation: "dino", "mocov3", "simclr", "small" or "digits".
        views: Global views m ≥ 2; they serve as positives.
        local_views: Smaller views, anchors only (multi-crop).
        image_size: Side of a global view, pixels.
        local_size: Side of a local view, pixels.
        mean: Normalisation of each channel: its mean.
        std: Its standard deviation.
        crop_scale: Smallest and largest share of the image that a global view shows.
        local_crop_scale: Likewise of a local view.
        interpolation: "bicubic" or "bilinear".
        brightness: Strength of its jitter; see `Photometric`, likewise for the next three.
        contrast: Strength of its jitter.
        saturation: Strength of its jitter.
        hue: Strength of its jitter.
        jitter: How often these four are applied.
        grey: How often a view loses its colours.
        blur: How often a global view is blurred: one value for all, or one for each in turn.
        blur_sigma: Smallest and largest standard deviation of the blur, pixels.
        solarise: How often a global view is solarised: as for `blur`.
        flip: How often a view is mirrored.
        view_precision: What colours and blur are computed in: "fp32" or "bf16".
    """

    augmentation: str = "dino"
    views: int = 2
    local_views: int = 0
    image_size: int = 224
    local_size: int = 96
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_scale: tuple[float, ...] | None = None
    local_crop_scale: tuple[float, ...] | None = None
    interpolation: str | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    jitter: float | None = None
    grey: float | None = None
    blur: tuple[float, ...] | None = None
    blur_sigma: tuple[float, ...] | None = None
    solarise: tuple[float, ...] | None = None
    flip: float | None = None
    view_precision: str = "fp32"

    def draw(self) -> tuple[View, ...]:
        """How each view is drawn, global ones first."""
        published = AUGMENTATIONS[self.augmentation](self.views, self.local_views, self.image_size, self.local_size)
        return tuple(self._changed(view, number) for number, view in enumerate(published))

    def _changed(self, view: View, number: int) -> View:
        """A view as published, but for what is set otherwise."""
        is_global = number < self.views
        photometric = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
            "jitter_probability": self.jitter,
            "grey_probability": self.grey,
            "blur_probability": self.blur[number % len(self.blur)] if self.blur and is_global else None,
            "blur_sigma": self.blur_sigma,
            "solarise_probability": self.solarise[number % len(self.solarise)] if self.solarise and is_global else None,
            "flip_probability": self.flip,
        }
        crop = {
            "crop_scale": self.crop_scale if is_global else self.local_crop_scale,
            "interpolation": self.interpolation,
            "photometric": replace(view.photometric, **_given(photometric)),
        }
        return replace(view, **_given(crop))

    @property
    def dtype(self) -> torch.dtype:
        """What colours and blur are computed in."""
        return torch.bfloat16 if self.view_precision == "bf16" else torch.float32

    @property
    def evaluation_resize(self) -> int:
        """What the shorter side is resized to before the centre crop: 256 for 224; small pictures stay whole."""
        return self.image_size if self.image_size < 96 else round(self.image_size * 256 / 224)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What learns.

    Args:
        arch: Backbone by its timm or torchvision name.
        stem: "imagenet", or "small" for ResNets on pictures of about 32 pixels.
        attention_heads: Of a ViT; 0 for those of its architecture.
        projector_hidden: Width of the projector's hidden layers.
        projector_out: Length of a projection.
        projector_layers: Number of its linear layers.
    """

    arch: str = "resnet50"
    stem: str = "imagenet"
    attention_heads: int = 0
    projector_hidden: int = 2048
    projector_out: int = 2048
    projector_layers: int = 3


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Which networks see the views; see `methods`.

    Args:
        method: "siamese" or "mocov3".
        ema_momentum: Of mocov3's momentum encoder at the start; grows to 1 along half a cosine.
        freeze_patches: Whether mocov3 keeps a ViT's patch embedding as it is.
    """

    method: str = "siamese"
    ema_momentum: float = 0.99
    freeze_patches: bool = True


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What is minimised; what is None is the loss's own default.

    Args:
        loss: "groco", "infonce" or "triplet".
        num_negatives: Strongest negatives of each anchor (10; all for infonce).
        stop_gradient: Compare anchors with constants (yes; no for infonce).
        beta: Inverse temperature of groco's swaps (1.0).
        preorder: Whether groco sorts each group first (yes).
        variant: Of groco: "paper" (default) or "official".
        temperature: Of infonce (0.1; 0.2 with mocov3).
        margin: Of triplet (0.8); may be infinite.
    """

    loss: str = "groco"
    num_negatives: int | None = None
    stop_gradient: bool | None = None
    beta: float | None = None
    preorder: bool | None = None
    variant: str | None = None
    temperature: float | None = None
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """How it learns.

    Args:
        optimizer: "sgd", "lars" or "adamw".
        learning_rate: For a batch of 256; see `lr_scaling`.
        lr_scaling: "linear" (learning_rate · batch/256), or "sqrt" (learning_rate · √(batch/256)).
        momentum: Of SGD and LARS.
        weight_decay: On every parameter, as published (LARS leaves out biases and BN).
        batch_size: Images a step, over all processes.
        epochs: Passes over the training images.
        warmup_epochs: Of these, with a linearly growing learning rate.
    """

    optimizer: str = "sgd"
    learning_rate: float = 6.0
    lr_scaling: str = "linear"
    momentum: float = 0.9
    weight_decay: float = 1e-6
    batch_size: int = 1024
    epochs: int = 100
    warmup_epochs: int = 1

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up."""
        times = self.batch_size / 256
        return self.learning_rate * (times if self.lr_scaling == "linear" else times**0.5)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where and how the run goes.

    Args:
        output: The run's folder; "" for the next free one under runs/.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        seed: Of weights, order and views.
        save_every: How often everything is saved: "1" (epochs), "500steps" or "10min"; at the end in any case.
        keep: States kept to go on from, the newest ones.
        milestones: Epochs between checkpoints that are kept for good; 0 for the last only.
        log_every: Steps between lines of metrics.jsonl.
        knn_every: Epochs between k-NN scores of the curve, where there are labels; 0 for none but the first and last.
        log_to: What metrics go to besides metrics.jsonl: "tensorboard", "wandb".
        gpus: GPUs of each machine, one process each; 0 for one process on `device`.
        processes: Processes on each machine, on its CPU; see `launch`.
        nodes: Machines.
        rdzv: Where several machines meet, HOST:PORT.
        process_timeout: Minutes until a process that does not answer is given up.
    """

    output: str = ""
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    save_every: str = "1"
    keep: int = 2
    milestones: int = 100
    log_every: int = 10
    knn_every: int = 5
    log_to: tuple[str, ...] = ()
    gpus: int = 0
    processes: int = 1
    nodes: int = 1
    rdzv: str = ""
    process_timeout: int = 30


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Everything that a run depends on.

    Raises:
        UsageError: If a value cannot be used, naming its option.
    """

    recipe: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        views, model, loss, optim, run = self.views, self.model, self.loss, self.optim, self.run
        _one_of("--on-bad-image", self.data.on_bad_image, ON_BAD_IMAGE)
        _at_least("--class-mates", self.data.class_mates, 0)
        _one_of("--augmentation", views.augmentation, AUGMENTATIONS)
        _one_of("--stem", model.stem, STEMS)
        _one_of("--method", self.method.method, METHODS)
        _one_of("--loss", loss.loss, LOSSES)
        _one_of("--variant", loss.variant or VARIANTS[0], VARIANTS)
        _one_of("--optimizer", optim.optimizer, OPTIMIZERS)
        _one_of("--lr-scaling", optim.lr_scaling, ("linear", "sqrt"))
        _one_of("--precision", run.precision, PRECISIONS)
        _one_of("--interpolation", views.interpolation or "bicubic", ("bicubic", "bilinear"))
        _one_of("--view-precision", views.view_precision, ("fp32", "bf16"))
        _shares("--crop-scale", views.crop_scale)
        _shares("--local-crop-scale", views.local_crop_scale)
        _at_least("--views", views.views, 2)
        _at_least("--local-views", views.local_views, 0)
        _at_least("--image-size", views.image_size, 8)
        _at_least("--local-size", views.local_size, 8)
        views.draw()  # which checks the rest of them
        _at_least("--attention-heads", model.attention_heads, 0)
        if not 0 <= self.method.ema_momentum <= 1:
            raise UsageError(f"--ema-momentum {self.method.ema_momentum} is out of range", "type 0.99")
        _at_least("--projector-hidden", model.projector_hidden, 1)
        _at_least("--projector-out", model.projector_out, 1)
        _at_least("--projector-layers", model.projector_layers, 1)
        _at_least("--negatives", 1 if loss.num_negatives is None else loss.num_negatives, 1)
        _at_least("--batch-size", optim.batch_size, 2)
        _at_least("--epochs", optim.epochs, 1)
        _at_least("--warmup-epochs", optim.warmup_epochs, 0)
        _at_least("--weight-decay", optim.weight_decay, 0)
        _at_least("--momentum", optim.momentum, 0)
        _at_least("--subset", self.data.subset, 0)
        Every.parse(run.save_every, "--save-every")
        _at_least("--keep", run.keep, 1)
        _at_least("--milestones", run.milestones, 0)
        _at_least("--log-every", run.log_every, 1)
        _at_least("--knn-every", run.knn_every, 0)
        _at_least("--seed", run.seed, 0)
        for name in run.log_to:
            _one_of("--log-to", str(name), SINKS)
        _check_processes(run)
        _positive("--beta", 1.0 if loss.beta is None else loss.beta)
        _positive("--temperature", 1.0 if loss.temperature is None else loss.temperature)
        if loss.margin is not None and not loss.margin >= 0:
            raise UsageError(f"--margin {loss.margin} is out of range", "type 0 or more, or inf")
        _positive("--lr", optim.learning_rate)
        if optim.warmup_epochs > optim.epochs:
            raise UsageError(
                f"--warmup-epochs {optim.warmup_epochs} is more than --epochs {optim.epochs}",
                f"type --warmup-epochs {optim.epochs // 10}",
            )


def _check_processes(run: RunSettings) -> None:
    _at_least("--gpus", run.gpus, 0)
    _at_least("--processes", run.processes, 1)
    _at_least("--nodes", run.nodes, 1)
    _at_least("--process-timeout", run.process_timeout, 1)
    if run.gpus and run.processes > 1:
        raise UsageError(f"--gpus {run.gpus} and --processes {run.processes} contradict each other", "leave one out")
    if run.gpus and run.device != "auto" and run.device != "cuda":
        raise UsageError(f"--gpus {run.gpus} and --device {run.device} contradict each other", "leave one out")
    if run.nodes > 1 and not run.rdzv:
        raise UsageError(f"--nodes {run.nodes} need a place to meet", "type --rdzv HOST:29400, HOST being one of them")
    host, _, port = run.rdzv.rpartition(":")
    if run.rdzv and not (host and port.isdecimal()):
        raise UsageError(f"--rdzv {run.rdzv} is no HOST:PORT", f"type --rdzv {run.rdzv.strip(':') or 'HOST'}:29400")


def _one_of(option: str, value: str, choices: object) -> None:
    names = list(choices)  # type: ignore[call-overload]
    if value not in names:
        raise UsageError(
            f"{option} {value}: no such choice", did_you_mean(value, names) or f"type one of {', '.join(names)}"
        )


def _at_least(option: str, value: float, least: float) -> None:
    if not least <= value < float("inf"):
        raise UsageError(f"{option} {value} is out of range", f"type {least:g} or more")


def _positive(option: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UsageError(f"{option} {value} is out of range", "type a positive number")


def _shares(option: str, values: tuple[float, ...] | None) -> None:
    if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1] <= 1):
        raise UsageError(f"{option} {' '.join(map(str, values))} is out of range", f"type {option} 0.14 1.0")


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
