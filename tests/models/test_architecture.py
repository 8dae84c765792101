"""The backbone is told from names and shapes: torchvision's ResNets, and ViTs by either library's names."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from groco_cli.models.architecture import identify
from groco_cli.models.containers import CheckpointError
from groco_cli.models.vit_names import in_timms_names, in_torchvisions_names


def resnet_state(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = torchvision.models.get_model(name, weights=None).state_dict()
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("resnet18", "ResNet-18"),
        ("resnet34", "ResNet-34"),
        ("resnet50", "ResNet-50"),
        ("resnet101", "ResNet-101"),
        ("resnet152", "ResNet-152"),
        ("wide_resnet50_2", "Wide ResNet-50-2"),
        ("wide_resnet101_2", "Wide ResNet-101-2"),
    ],
)
def test_resnets_are_told_by_their_blocks(name: str, title: str):
    found = identify(resnet_state(name))
    assert (found.arch, found.title, found.stem, found.image_size, found.resize) == (name, title, "imagenet", 224, 256)
    wanted = timm.create_model(name, num_classes=0).state_dict()
    assert {key: t.shape for key, t in found.state.items()} == {key: t.shape for key, t in wanted.items()}


def test_a_lost_block_does_not_make_it_a_smaller_network():
    state = {key: t for key, t in resnet_state("resnet101").items() if not key.startswith("layer3.22.")}
    assert identify(state).arch == "resnet101"


def test_a_wider_network_is_told_as_none_that_there_is():
    """SwAV's and SimCLR's RN50w2: every layer of double width, the stem too."""
    state = resnet_state("resnet50")
    state["conv1.weight"] = torch.zeros(128, 3, 7, 7)
    with pytest.raises(CheckpointError, match="3-4-6-3 blocks and width 128 is not one that timm has") as caught:
        identify(state)
    assert "width 64" in caught.value.hint


def test_an_unheard_of_depth_is_told():
    state = resnet_state("resnet152") | {"layer2.40.conv1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="3-41-36-3 blocks"):
        identify(state)


def vit_state(width: int, patch: int, grid: int) -> dict[str, Tensor]:
    return {
        "patch_embed.proj.weight": torch.zeros(width, 3, patch, patch, device="meta"),
        "pos_embed": torch.zeros(1, grid * grid + 1, width),
        "blocks.11.norm1.weight": torch.zeros(width),
    }


@pytest.mark.parametrize(
    ("width", "patch", "arch", "title"),
    [
        (192, 16, "vit_tiny_patch16_224", "ViT-Ti/16"),
        (384, 16, "vit_small_patch16_224", "ViT-S/16"),
        (384, 8, "vit_small_patch8_224", "ViT-S/8"),
        (768, 16, "vit_base_patch16_224", "ViT-B/16"),
        (768, 8, "vit_base_patch8_224", "ViT-B/8"),
        (1024, 16, "vit_large_patch16_224", "ViT-L/16"),
    ],
)
def test_vits_are_told_by_width_and_patch(width: int, patch: int, arch: str, title: str):
    found = identify(vit_state(width, patch, 224 // patch))
    assert (found.arch, found.title, found.image_size, found.resize, found.heads) == (arch, title, 224, 256, 0)


def test_the_positions_tell_the_picture():
    found = identify(vit_state(384, 16, 24))
    assert (found.image_size, found.resize) == (384, 439)


@pytest.mark.parametrize(("width", "patch", "grid"), [(400, 16, 14), (384, 5, 14)])
def test_an_unheard_of_vit_is_told(width: int, patch: int, grid: int):
    with pytest.raises(CheckpointError, match=f"a ViT of width {width}, patches of {patch} pixels"):
        identify(vit_state(width, patch, grid))


@pytest.mark.parametrize("lost", ["pos_embed", "patch_embed.proj.weight"])
def test_a_vit_without_what_tells_its_size_is_told(lost: str):
    state = vit_state(384, 16, 14)
    del state[lost]
    with pytest.raises(CheckpointError, match=r"without patch_embed\.proj\.weight or pos_embed"):
        identify(state)


def test_other_weights_are_told():
    with pytest.raises(CheckpointError, match="weights of no ResNet or ViT: features"):
        identify({"features.0.weight": torch.zeros(1)})


def test_names_of_both_libraries_are_those_of_their_models():
    with torch.device("meta"):
        torchvisions = torchvision.models.vit_b_16().state_dict()
        timms = timm.create_model("vit_base_patch16_224").state_dict()
    renamed = in_timms_names({key: t for key, t in torchvisions.items() if not key.startswith("heads.")})
    wanted = {key: t.shape for key, t in timms.items() if not key.startswith("head.")}
    assert {key: t.shape for key, t in renamed.items()} == wanted
    back = in_torchvisions_names(renamed)
    assert {f"{key}": t.shape for key, t in back.items()} == {
        key: t.shape for key, t in torchvisions.items() if not key.startswith("heads.")
    }


def test_torchvisions_older_names_are_known():
    old = {"encoder.layers.encoder_layer_10.mlp.linear_2.bias": torch.zeros(1)}
    assert list(in_timms_names(old)) == ["blocks.10.mlp.fc2.bias"]
