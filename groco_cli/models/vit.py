"""What MoCo v3 does to a vision transformer before it trains one (its released code, vits.py)."""

import math

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def is_vit(backbone: nn.Module) -> bool:
    """Whether a backbone is a plain vision transformer of timm's."""
    return isinstance(backbone, VisionTransformer)


def initialise_as_mocov3(backbone: nn.Module) -> None:
    """Xavier-uniform weights, queries, keys and values each by themselves, and fixed sine-cosine position embeddings.

    The fixed embeddings are weights that need no gradient: a checkpoint holds them like any others.
    """
    assert isinstance(backbone, VisionTransformer)
    backbone.init_weights("moco")
    patches = backbone.patch_embed.proj
    bound = math.sqrt(6 / (patches.weight[0].numel() + backbone.embed_dim))
    nn.init.uniform_(patches.weight, -bound, bound)
    if patches.bias is not None:
        nn.init.zeros_(patches.bias)
    if backbone.pos_embed is None:
        return
    positions = build_sincos2d_pos_embed(
        list(backbone.patch_embed.grid_size), backbone.embed_dim, interleave_sin_cos=True
    )
    with torch.no_grad():
        backbone.pos_embed.zero_()  # the class token, where it has a place, stays without one
        backbone.pos_embed[:, -len(positions) :] = positions
    backbone.pos_embed.requires_grad_(False)


def fix_patch_embedding(backbone: nn.Module) -> None:
    """Freeze the layer that embeds patches."""
    assert isinstance(backbone, VisionTransformer)
    backbone.patch_embed.requires_grad_(False)
