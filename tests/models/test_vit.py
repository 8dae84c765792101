import math

import timm
import torch

from groco_cli.models.vit import fix_patch_embedding, initialise_as_mocov3, is_vit


def small_vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=2)


def test_a_vit_is_known_from_a_resnet():
    assert is_vit(small_vit())
    assert not is_vit(timm.create_model("resnet10t", num_classes=0))


def test_position_embeddings_are_moco_v3_s_sines_and_cosines():
    """By hand: a quarter each of sin and cos of the row, then of the column, over wavelengths up to 10,000."""
    vit = small_vit()
    initialise_as_mocov3(vit)
    quarter = vit.embed_dim // 4
    assert torch.equal(vit.pos_embed[0, 0], torch.zeros(vit.embed_dim))
    for row in range(4):
        for column in range(4):
            angles = [[place / 10000 ** (i / quarter) for i in range(quarter)] for place in (row, column)]
            expected = [f(angle) for axis in angles for f in (math.sin, math.cos) for angle in axis]
            torch.testing.assert_close(vit.pos_embed[0, 1 + row * 4 + column], torch.tensor(expected))
    assert not vit.pos_embed.requires_grad


def test_weights_are_xavier_uniform_with_queries_keys_and_values_apart():
    vit = small_vit()
    initialise_as_mocov3(vit)
    dim = vit.embed_dim
    bounds = {
        "blocks.0.attn.qkv.weight": math.sqrt(6 / (dim + dim)),
        "blocks.1.mlp.fc1.weight": math.sqrt(6 / (dim + 4 * dim)),
        "patch_embed.proj.weight": math.sqrt(6 / (3 * 16 * 16 + dim)),
    }
    for name, bound in bounds.items():
        largest = vit.get_parameter(name).abs().max().item()
        assert 0.99 * bound < largest <= bound, name
    for name in ("blocks.0.attn.qkv.bias", "patch_embed.proj.bias"):
        assert not vit.get_parameter(name).any()


def test_a_fixed_patch_embedding_gets_no_gradient():
    vit = small_vit()
    fix_patch_embedding(vit)
    vit(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is None for parameter in vit.patch_embed.parameters())
    assert vit.blocks[0].attn.qkv.weight.grad is not None
