"""Vision transformers by timm's names and by torchvision's: the same tensors, called differently.

Both keep queries, keys and values in one matrix, in that order, so that nothing but names has to change.
Sources: timm/models/vision_transformer.py; torchvision/models/vision_transformer.py.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# timm's, torchvision's; "{}" stands for the number of a block.
_NAMES = [
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    ("patch_embed.proj.weight", "conv_proj.weight"),
    ("patch_embed.proj.bias", "conv_proj.bias"),
    ("norm.weight", "encoder.ln.weight"),
    ("norm.bias", "encoder.ln.bias"),
    *[
        (f"blocks.{{}}.{timm}{kind}", f"encoder.layers.encoder_layer_{{}}.{torchvision}{kind}")
        for kind in ("weight", "bias")
        for timm, torchvision in (
            ("norm1.", "ln_1."),
            ("attn.qkv.", "self_attention.in_proj_"),
            ("attn.proj.", "self_attention.out_proj."),
            ("norm2.", "ln_2."),
            ("mlp.fc1.", "mlp.0."),
            ("mlp.fc2.", "mlp.3."),
        )
    ],
]


def in_timms_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a torchvision ViT's tensors to timm's; names that are not a ViT's stay."""
    # Until version 0.13 torchvision called the MLP's layers so (MLPBlock._load_from_state_dict).
    old = {".mlp.linear_1.": ".mlp.0.", ".mlp.linear_2.": ".mlp.3."}
    return _renamed(
        {re.sub("|".join(map(re.escape, old)), lambda found: old[found[0]], name): t for name, t in state.items()},
        {torchvision: timm for timm, torchvision in _NAMES},
    )


def in_torchvisions_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a timm ViT's tensors to torchvision's; names that are not a ViT's stay."""
    return _renamed(state, dict(_NAMES))


def in_names_of(wanted: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ViT's tensors to the library's names that `wanted` are; anything else stays as it is."""
    if "cls_token" in wanted:
        return in_timms_names(state)
    if "class_token" in wanted:
        return in_torchvisions_names(state)
    return dict(state)


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        number = re.search(r"(?<=blocks\.)\d+|(?<=encoder_layer_)\d+", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        renamed = names.get(pattern, name)
        found[renamed if number is None else renamed.replace("{}", number[0])] = tensor
    return found
