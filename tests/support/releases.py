"""A file of each source, laid out as its training script writes it; `SOURCES` has them all.

Each makes of an encoder's weights, and of another's, what the file holds, and by which title groco knows it.
"""

import argparse
from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def named(prefix: str, *states: State) -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + name, tensor) for state in states for name, tensor in state.items())


def mlp(name: str, *widths: int, bias: bool = False) -> State:
    """(Linear, BN, ReLU) as in every projector, by the numbers that nn.Sequential gives."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), nn.BatchNorm1d(after), nn.ReLU()]
    return named(f"{name}.", nn.Sequential(*layers).state_dict())


def linear(name: str, *shape: int) -> State:
    return {f"{name}.weight": torch.randn(*shape), f"{name}.bias": torch.randn(shape[0])}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.randn(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
TRAINED = {"epoch": 200, "arch": "resnet18", "optimizer": OPTIMIZER}
DINO_HEAD = {"head.mlp.0.weight": torch.randn(8, 512), "head.last_layer.weight_g": torch.ones(8, 1)}
LIGHTNING = {"epoch": 399, "global_step": 9, "pytorch-lightning_version": "1.6", "hyper_parameters": {"lr": 0.1}}


def groco(encoder: State, other: State) -> tuple[object, str]:
    content = {
        "epoch": 99,
        "step": 125_000,
        "encoder": named("module.encoder.", encoder),
        "projection": named("module.projection.", mlp("x", 512, 8)),
        "optimizer": OPTIMIZER,
        "config": OrderedDict(name="2views_100ep", loss=OrderedDict(type="GroCoLoss", args=OrderedDict(beta=1))),
    }
    return content, "GroCo"


def moco_v2(encoder: State, other: State) -> tuple[object, str]:
    weights = named("module.encoder_q.", encoder, linear("fc.0", 8, 512), linear("fc.2", 8, 8))
    weights |= named("module.encoder_k.", other, linear("fc.0", 8, 512), linear("fc.2", 8, 8))
    weights |= {"module.queue": torch.randn(8, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return {**TRAINED, "state_dict": weights}, "MoCo v2"


def moco_v3(encoder: State, other: State) -> tuple[object, str]:
    weights = named("module.base_encoder.", encoder, mlp("fc", 512, 16, 8))
    weights |= named("module.momentum_encoder.", other, mlp("fc", 512, 16, 8))
    weights |= named("module.", mlp("predictor", 8, 16, 8))
    return {**TRAINED, "scaler": {"scale": 65536.0}, "state_dict": weights}, "MoCo v3, base encoder"


def moco_v3_momentum(encoder: State, other: State) -> tuple[object, str]:
    weights = named("module.momentum_encoder.", encoder, mlp("fc", 512, 16, 8))
    return {**TRAINED, "state_dict": weights}, "MoCo v3, momentum encoder"


def simsiam(encoder: State, other: State) -> tuple[object, str]:
    weights = named("module.encoder.", encoder, mlp("fc", 512, 512, 8)) | named("module.", mlp("predictor", 8, 4))
    return {**TRAINED, "state_dict": weights}, "SimSiam"


def swav_flat(encoder: State, other: State) -> tuple[object, str]:
    heads = mlp("projection_head", 512, 16, 8, bias=True) | {"prototypes.weight": torch.randn(30, 8)}
    return named("module.", encoder, heads), "SwAV"


def swav(encoder: State, other: State) -> tuple[object, str]:
    weights, title = swav_flat(encoder, other)
    return {"epoch": 200, "state_dict": weights, "optimizer": OPTIMIZER, "amp": {"loss_scaler0": {}}}, title


def dino(encoder: State, other: State) -> tuple[object, str]:
    content = {
        "student": named("module.", named("backbone.", other), DINO_HEAD),
        "teacher": named("module.", named("backbone.", encoder), DINO_HEAD),  # wrapped too where it has BNs
        "optimizer": OPTIMIZER,
        "epoch": 200,
        "args": argparse.Namespace(arch="resnet50", patch_size=16, local_crops_scale=(0.05, 0.4), output_dir="."),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }
    return content, "DINO, teacher"


def dino_student(encoder: State, other: State) -> tuple[object, str]:
    return {"student": named("module.backbone.", encoder), "epoch": 200}, "DINO, student"


def barlow_twins(encoder: State, other: State) -> tuple[object, str]:
    others = mlp("projector", 512, 16) | {"bn.running_mean": torch.zeros(8), "bn.running_var": torch.ones(8)}
    weights = named("module.", named("backbone.", encoder), others)
    return {"epoch": 200, "model": weights, "optimizer": OPTIMIZER}, "Barlow Twins"


def vicreg(encoder: State, other: State) -> tuple[object, str]:
    weights = named("module.", named("backbone.", encoder), mlp("projector", 512, 16, bias=True))
    return {"epoch": 200, "model": weights, "optimizer": OPTIMIZER}, "VICReg"


def dino_flat(encoder: State, other: State) -> tuple[object, str]:
    return named("module.", named("backbone.", encoder), DINO_HEAD), "DINO"


def barlow_twins_flat(encoder: State, other: State) -> tuple[object, str]:
    content, title = barlow_twins(encoder, other)
    return content["model"], title


def vicreg_flat(encoder: State, other: State) -> tuple[object, str]:
    content, title = vicreg(encoder, other)
    return content["model"], title


def prefixed(encoder: State, other: State) -> tuple[object, str]:
    return named("module.backbone.", encoder), "plain weights"


def prefixed_on_one_gpu(encoder: State, other: State) -> tuple[object, str]:
    return named("backbone.", encoder, linear("fc", 1000, 512)), "plain weights"


def prefixed_model(encoder: State, other: State) -> tuple[object, str]:
    return {"model": named("module.backbone.", encoder), "optimizer": OPTIMIZER}, "plain weights"


def wrapped(encoder: State, other: State) -> tuple[object, str]:
    return named("module.", encoder), "plain weights"


def solo_learn(encoder: State, other: State) -> tuple[object, str]:
    weights = named("backbone.", encoder) | linear("classifier", 10, 512) | mlp("projector", 512, 8)
    weights |= named("momentum_backbone.", other)
    return {**LIGHTNING, "state_dict": weights}, "solo-learn"


def lightly(encoder: State, other: State) -> tuple[object, str]:
    weights = named("backbone.", encoder) | named("projection_head.layers.", mlp("x", 512, 8))
    return {**LIGHTNING, "state_dict": weights}, "lightly"


def lightly_in_stages(encoder: State, other: State) -> tuple[object, str]:
    """`self.backbone = nn.Sequential(*list(resnet.children())[:-1])`."""
    stages = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    weights = {f"backbone.{stages[n.split('.')[0]]}.{n.partition('.')[2]}": t for n, t in encoder.items()}
    return {**LIGHTNING, "state_dict": weights}, "lightly"


def simclr(encoder: State, other: State) -> tuple[object, str]:
    return {"state_dict": OrderedDict(encoder) | linear("fc", 1000, 512)}, "SimCLR, converted"


def byol(encoder: State, other: State) -> tuple[object, str]:
    """byol-convert: no counters of batches, the classifier that was trained beside."""
    return {n: t for n, t in encoder.items() if "tracked" not in n} | linear("fc", 1000, 512), "plain weights"


def plain(encoder: State, other: State) -> tuple[object, str]:
    return OrderedDict(encoder), "plain weights"


def supervised(encoder: State, other: State) -> tuple[object, str]:
    return OrderedDict(encoder) | linear("fc", 1000, 512), "plain weights"


FLAT = (swav_flat, dino_flat, barlow_twins_flat, vicreg_flat, simclr)
EPOCHS = {groco: 100, solo_learn: 400, lightly: 400, lightly_in_stages: 400, **dict.fromkeys(FLAT, 0)}
SOURCES = {
    groco: "groco",
    moco_v2: "moco-v2",
    moco_v3: "moco-v3",
    moco_v3_momentum: "moco-v3",
    simsiam: "simsiam",
    swav_flat: "swav",
    swav: "swav",
    dino: "dino",
    dino_student: "dino",
    barlow_twins: "barlow-twins",
    vicreg: "vicreg",
    solo_learn: "solo-learn",
    lightly: "lightly",
    lightly_in_stages: "lightly",
    simclr: "simclr",
    byol: "unknown",
    plain: "unknown",
    supervised: "unknown",
    dino_flat: "dino",
    barlow_twins_flat: "barlow-twins",
    vicreg_flat: "vicreg",
    prefixed: "unknown",
    prefixed_on_one_gpu: "unknown",
    prefixed_model: "unknown",
    wrapped: "unknown",
}
