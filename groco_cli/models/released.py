"""The checkpoints that others have released: how each is recognised, and where in it the encoder lies.

A file is a dictionary. In one of its places lies a dictionary of weights, whose names begin with where the encoder was
in the training code's module. Place, beginning, and what lies beside them tell the source; the file's name never does.
`DistributedDataParallel` puts "module." before every name; it is taken off first, so the table does without.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from groco_cli.models.containers import CheckpointError

State = Mapping[str, Tensor]

# Heads that stand inside the encoder, in place of its classifier or behind it.
_HEADS = ("fc.", "head.", "heads.", "projection_head.", "prototypes.")
# What every ResNet or ViT has: where there is no prefix, nothing else says that these are one's weights.
_BACKBONES = ("layer1.", "4.0.", "blocks.", "encoder.layers.")


def _anything(content: Mapping[Any, Any], state: State) -> bool:
    return True


def _never_counted(content: Mapping[Any, Any], state: State) -> bool:
    """Batch normalisation that never counted a batch: it was not trained in torch, or with frozen BN."""
    counters = [tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")]
    return bool(counters) and not any(counter.any() for counter in counters)


def _converted_from_tensorflow(content: Mapping[Any, Any], state: State) -> bool:
    return len(content) == 1 and _never_counted(content, state)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A source of checkpoints, and how to read them.

    Args:
        method: What the encoder's metadata say of how it was trained.
        title: For people.
        places: Where in the file the weights may lie; "" for the file itself.
        prefix: What the encoder's names begin with.
        beside: Beginnings of names, one of which lies among the weights.
        file_has: What lies in the file beside the place.
        told_by: What else the file must be.
        guessed: Where that is no proof, what it rests on, for people: `--method` may then say otherwise.
        otherwise: The method that it may well be instead.
        normalised: Whether it was trained on images normalised with ImageNet's mean and standard deviation.
        small_stem: The stem where the first convolution is 3×3.
        epoch_from: The file's number of its first epoch.
    """

    method: str
    title: str
    places: tuple[str, ...] = ("state_dict",)
    prefix: str = ""
    beside: tuple[str, ...] = ()
    file_has: tuple[str, ...] = ()
    told_by: Callable[[Mapping[Any, Any], State], bool] = _anything
    guessed: str = ""
    otherwise: str = ""
    normalised: bool = True
    small_stem: str = "small"
    epoch_from: int = 1


# What a file is when its names tell the backbone and nothing else: the published backbones of DINO, Barlow Twins,
# VICReg and BYOL (byol-convert) are such files, and those of torchvision and timm.
PLAIN = Release(
    method="unknown",
    title="plain weights",
    places=("", "state_dict", "model"),
)
# The same cut out of a training script's file together with its prefix.
_PLAIN_WITH_PREFIX = replace(PLAIN, prefix="backbone.")

# The first row that fits is taken.
RELEASES = (
    # learning_by_sorting/base/base_trainer.py: epoch counted from 0, "encoder" and "projection" beside each other.
    Release(
        method="groco", title="GroCo", places=("encoder",), prefix="encoder.", file_has=("projection",), epoch_from=0
    ),
    # facebookresearch/moco, main_moco.py; fc is the projection head.
    Release(method="moco-v2", title="MoCo v2", prefix="encoder_q."),
    # facebookresearch/moco-v3, main_moco.py; its fc, or head for a ViT, is an MLP.
    Release(method="moco-v3", title="MoCo v3, base encoder", prefix="base_encoder."),
    Release(method="moco-v3", title="MoCo v3, momentum encoder", prefix="momentum_encoder."),
    # facebookresearch/simsiam, simsiam/builder.py; fc is the projection head.
    Release(method="simsiam", title="SimSiam", prefix="encoder.", beside=("predictor.",)),
    # facebookresearch/dino, main_dino.py: the teacher is the better one, and what its authors release.
    Release(method="dino", title="DINO, teacher", places=("teacher",), prefix="backbone."),
    Release(method="dino", title="DINO, student", places=("student",), prefix="backbone."),
    Release(method="dino", title="DINO", places=("",), prefix="backbone.", beside=("head.last_layer.",)),
    # facebookresearch/barlowtwins, main.py: a BN without a bias behind the projector, which VICReg lacks.
    Release(method="barlow-twins", title="Barlow Twins", places=("model", ""), prefix="backbone.", beside=("bn.",)),
    # facebookresearch/vicreg, main_vicreg.py. Like SwAV's, its ResNet pads by ConstantPad2d(1) before a convolution
    # that pads by 2 (resnet.py): torchvision's padding of 3, and no weight of its own.
    Release(method="vicreg", title="VICReg", places=("model", ""), prefix="backbone.", beside=("projector.",)),
    # facebookresearch/swav, src/resnet50.py; DeepCluster v2 and SeLa v2 of the same repository too.
    Release(method="swav", title="SwAV", places=("", "state_dict"), beside=("prototypes.", "projection_head.")),
    # vturrisi/solo-learn, solo/methods/base.py: for CIFAR its first convolution pads by 2, where others pad by 1.
    Release(
        method="solo-learn",
        title="solo-learn",
        prefix="backbone.",
        beside=("classifier.",),
        small_stem="small-pad2",
        epoch_from=0,
    ),
    # lightly-ai/lightly, benchmarks/; Lightning counts epochs from 0.
    Release(method="lightly", title="lightly", prefix="backbone.", epoch_from=0),
    # tonylins/simclr-converter, convert.py: {"state_dict": …} and nothing else. TensorFlow's images were in [0, 1].
    # Weights of torchvision's that were ported, never trained, or trained with frozen BN may be saved just so.
    Release(
        method="simclr",
        title="SimCLR, converted",
        beside=("fc.",),
        told_by=_converted_from_tensorflow,
        guessed="only because its batch normalisation never counted a batch",
        otherwise="supervised",
        normalised=False,
    ),
    # The same weights without the "state_dict" around them look like torchvision's, of which there are far more.
    replace(
        PLAIN,
        beside=("fc.",),
        told_by=_never_counted,
        guessed="although its batch normalisation, like that of a converted SimCLR, never counted a batch",
        otherwise="simclr",
    ),
    PLAIN,
    _PLAIN_WITH_PREFIX,
)
# What may be said of plain weights: the methods above, and those that only ever come as plain weights.
METHODS = {
    **{release.method: release for release in RELEASES if release.method != PLAIN.method},
    "byol": Release(method="byol", title="BYOL"),
    "supervised": Release(method="supervised", title="supervised"),
}


@dataclass(frozen=True)
class Found:
    """An encoder in a file.

    Args:
        release: Whose it is.
        state: Its weights, by the backbone's own names.
        left_out: What lay beside it, by the first part of its names.
        epoch: Epochs it was trained for; 0 where the file does not say.
    """

    release: Release
    state: State
    left_out: tuple[str, ...]
    epoch: int


def find_encoder(content: Mapping[Any, Any]) -> Found:
    """Find the encoder in what a file holds.

    Args:
        content: The file's dictionary.

    Raises:
        CheckpointError: If no row of the table fits.
    """
    for release in RELEASES:
        for place in release.places:
            state = _weights(content if place == "" else content.get(place))
            if _fits(release, content, state):
                return _cut_out(release, content, state)
    raise CheckpointError(
        f"no checkpoint that groco knows: it holds {_summary(content)}",
        "docs/convert.md lists what can be read",
    )


def _weights(place: object) -> dict[str, Tensor]:
    """The tensors of a dictionary by name, without `DistributedDataParallel`'s prefix."""
    if not isinstance(place, Mapping):
        return {}
    state = {name: tensor for name, tensor in place.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _fits(release: Release, content: Mapping[Any, Any], state: State) -> bool:
    return (
        any(name.startswith(release.prefix) for name in state)
        and (not release.beside or any(name.startswith(release.beside) for name in state))
        and (release.prefix != "" or any(name.startswith(_BACKBONES) for name in state))
        and all(key in content for key in release.file_has)
        and release.told_by(content, state)
    )


def _cut_out(release: Release, content: Mapping[Any, Any], state: State) -> Found:
    inside = {name.removeprefix(release.prefix): name for name in state if name.startswith(release.prefix)}
    encoder = {name: state[stored] for name, stored in inside.items() if not name.startswith(_HEADS)}
    heads = [name.partition(".")[0] for name in inside if name.startswith(_HEADS)]
    others = [name.partition(".")[0] for name in state if not name.startswith(release.prefix)]
    epoch = content.get("epoch")
    return Found(
        release,
        encoder,
        tuple(dict.fromkeys([*others, *heads])),
        epoch + 1 - release.epoch_from if isinstance(epoch, int) and epoch >= 0 else 0,
    )


def _summary(content: Mapping[Any, Any]) -> str:
    """What a file holds, in a few words: its keys, and the names of a few weights."""
    places = {str(key): list(_weights(value)) for key, value in content.items() if _weights(value)}
    words = ", ".join(map(str, list(content)[:6])) + (", …" if len(content) > 6 else "")
    inside = [f"{key} of {len(names)} tensors ({', '.join(names[:2])}, …)" for key, names in places.items()]
    return (words or "nothing") + (f": {'; '.join(inside)}" if inside else "")
