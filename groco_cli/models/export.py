"""An encoder's weights as plain timm or torchvision has them, tried out before they are given away.

The library's own model is built, loaded with `strict=True`, and shown the same picture: what it answers must be what
the encoder answers. So an architecture whose names happen to agree is not enough.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from groco_cli.models.architecture import mismatch
from groco_cli.models.containers import CheckpointError
from groco_cli.models.encoder import Encoder
from groco_cli.models.vit_names import in_names_of, in_timms_names

# torchvision's ViTs, by patch and width, as timm calls them.
_TIMMS_VIT = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An encoder's weights by another library's names.

    Args:
        library: "timm" or "torchvision".
        state: The weights.
        build: Python that builds the model which loads them with `strict=True`.
    """

    library: str
    state: Mapping[str, Tensor]
    build: str


def export(encoder: Encoder, library: str) -> Exported:
    """Give an encoder's weights the names of timm or torchvision.

    Args:
        encoder: In evaluation mode.
        library: "timm" or "torchvision".

    Raises:
        CheckpointError: If the library's plain models have no such encoder.
    """
    metadata = encoder.metadata
    name = metadata.arch.rpartition(":")[2]
    if metadata.stem != "imagenet":
        raise CheckpointError(
            f"{name} with a {metadata.stem} stem: plain {library} has none such", "convert it --to groco"
        )
    model, build = {"timm": _plain_timm, "torchvision": _plain_torchvision}[library](encoder, name)
    state = in_names_of(model.state_dict(), encoder.backbone.state_dict())
    wrong = mismatch(model.state_dict(), state)
    if wrong:
        raise CheckpointError(f"{name} is built otherwise in plain {library}: {wrong}", "convert it --to groco")
    model.load_state_dict(state, strict=True)
    _check_same(encoder, model.eval(), library)
    return Exported(library=library, state=state, build=build)


def _plain_timm(encoder: Encoder, name: str) -> tuple[nn.Module, str]:
    name = _TIMMS_VIT.get(name, name)
    if not timm.is_model(name):
        raise CheckpointError(f"timm has no {name}")
    options: dict[str, Any] = {}
    if encoder.metadata.attention_heads:
        options["num_heads"] = encoder.metadata.attention_heads
    model = timm.create_model(name, num_classes=0, **options)
    if _places(model) != _places(encoder.backbone):
        options["img_size"] = encoder.metadata.image_size
        model = timm.create_model(name, num_classes=0, **options)
    written = "".join(f", {option}={value}" for option, value in options.items())
    return model, f'timm.create_model("{name}", num_classes=0{written})'


def _plain_torchvision(encoder: Encoder, name: str) -> tuple[nn.Module, str]:
    vit = re.fullmatch(r"vit_[a-z]+_patch(\d+)_\d+", name)
    if vit:
        return _torchvisions_vit(encoder.backbone, name, encoder.metadata.image_size, int(vit[1]))
    if name not in torchvision.models.list_models(torchvision.models):
        raise CheckpointError(f"torchvision has no {name}", "convert it --to timm, or --to groco")
    model = torchvision.models.get_model(name, weights=None)
    linear = [place for place, module in model.named_modules() if isinstance(module, nn.Linear)]
    return _without(model, linear[-1], f"{name}()")


def _torchvisions_vit(vit: Any, name: str, image_size: int, patch: int) -> tuple[nn.Module, str]:
    sizes = {
        "image_size": image_size,
        "patch_size": patch,
        "num_layers": len(vit.blocks),
        "num_heads": vit.blocks[0].attn.num_heads,
        "hidden_dim": vit.embed_dim,
        "mlp_dim": vit.blocks[0].mlp.fc1.out_features,
    }
    plain = {timms: torchvisions for torchvisions, timms in _TIMMS_VIT.items()}.get(name)
    written = ", ".join(f"{size}={value}" for size, value in sizes.items())
    built = f"{plain}()" if plain and image_size == 224 else f"VisionTransformer({written})"
    return _without(torchvision.models.VisionTransformer(**sizes), "heads", built)


def _without(model: nn.Module, classifier: str, built: str) -> tuple[nn.Module, str]:
    model.set_submodule(classifier, nn.Identity())
    return model, f"model = torchvision.models.{built}; model.set_submodule({classifier!r}, torch.nn.Identity())"


def _places(model: nn.Module) -> int:
    """Places of a position embedding: what an image size settles; 0 where there is none."""
    state = in_timms_names(model.state_dict())
    return state["pos_embed"].shape[1] if "pos_embed" in state else 0


def _check_same(encoder: Encoder, model: nn.Module, library: str) -> None:
    size = encoder.metadata.image_size
    picture = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = encoder(picture), model(picture)
    # Libraries order their sums differently; a real difference is of the features' own size.
    slack = 1e-3 * float(expected.abs().max())
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=1e-3, atol=slack):
        raise CheckpointError(f"plain {library} computes other features of {encoder.metadata.arch}'s weights")
