"""What is given to timm and torchvision loads there with `strict=True`, gives the same features, and comes back."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from groco_cli.models import Encoder, EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.containers import CheckpointError
from groco_cli.models.conversion import save_for_library
from groco_cli.models.export import export


def encoder_of(seeded, arch: str, **settings: object) -> Encoder:
    encoder = create_encoder(EncoderMetadata(arch=arch, method="groco", epoch=3, mean=(0.1, 0.2, 0.3), **settings))
    return seeded(encoder)


def written(path: Path, encoder: Encoder, library: str) -> tuple[dict[str, torch.Tensor], str]:
    exported = export(encoder, library)
    save_for_library(path, encoder, exported)
    return load_file(path), exported.build


@pytest.mark.parametrize(
    ("arch", "size", "build"),
    [
        ("resnet18", 64, 'timm.create_model("resnet18", num_classes=0)'),
        ("torchvision:resnet18", 64, 'timm.create_model("resnet18", num_classes=0)'),
        ("test_resnet", 64, 'timm.create_model("test_resnet", num_classes=0)'),
        ("vit_tiny_patch16_224", 224, 'timm.create_model("vit_tiny_patch16_224", num_classes=0)'),
        ("vit_tiny_patch16_224", 64, 'timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)'),
    ],
)
def test_plain_timm_takes_it(tmp_path: Path, seeded, same_features, arch: str, size: int, build: str):
    encoder = encoder_of(seeded, arch, image_size=size)
    state, told = written(tmp_path / "x.safetensors", encoder, "timm")
    assert told == build
    model = eval(build).eval()
    model.load_state_dict(state, strict=True)
    same_features(model, encoder, size)


@pytest.mark.parametrize(("arch", "size"), [("resnet18", 64), ("timm:resnet50", 64), ("torchvision:resnet18", 64)])
def test_plain_torchvision_takes_a_resnet(tmp_path: Path, seeded, same_features, arch: str, size: int):
    encoder = encoder_of(seeded, arch, image_size=size)
    state, build = written(tmp_path / "x.safetensors", encoder, "torchvision")
    model = torchvision.models.get_model(arch.partition(":")[2] or arch, weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(state, strict=True)
    same_features(model.eval(), encoder, size)
    assert build.startswith("model = torchvision.models.resnet")
    names: dict[str, object] = {"torch": torch, "torchvision": torchvision}
    exec(build, names)
    names["model"].load_state_dict(state, strict=True)


@pytest.mark.parametrize(("heads", "size"), [(0, 64), (12, 64)])
def test_torchvisions_vision_transformer_takes_a_vit(tmp_path: Path, seeded, same_features, heads: int, size: int):
    encoder = encoder_of(seeded, "vit_tiny_patch16_224", image_size=size, attention_heads=heads)
    state, build = written(tmp_path / "x.safetensors", encoder, "torchvision")
    model = torchvision.models.VisionTransformer(
        image_size=size, patch_size=16, num_layers=12, num_heads=heads or 3, hidden_dim=192, mlp_dim=768
    )
    model.heads = nn.Identity()
    model.load_state_dict(state, strict=True)
    same_features(model.eval(), encoder, size)
    names: dict[str, object] = {"torch": torch, "torchvision": torchvision}
    exec(build, names)
    names["model"].load_state_dict(state, strict=True)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["vit_base_patch16_224"])
def test_a_vit_base_goes_to_and_from_vit_b_16(tmp_path: Path, seeded, same_features, arch: str):
    encoder = encoder_of(seeded, arch)
    state, build = written(tmp_path / "x.safetensors", encoder, "torchvision")
    assert "torchvision.models.vit_b_16()" in build
    model = torchvision.models.vit_b_16()
    model.heads = nn.Identity()
    model.load_state_dict(state, strict=True)
    same_features(model.eval(), encoder, 224)
    same_features(load_encoder(tmp_path / "x.safetensors"), encoder, 224)
    state, _ = written(tmp_path / "x.safetensors", encoder, "timm")
    timm.create_model("vit_base_patch16_224", num_classes=0).load_state_dict(state, strict=True)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("arch", "settings"),
    [
        ("resnet18", {}),
        ("torchvision:resnet18", {}),
        ("vit_tiny_patch16_224", {"attention_heads": 12, "image_size": 64}),
    ],
)
def test_it_comes_back_with_features_and_metadata(tmp_path, seeded, same_features, arch, settings, library):
    encoder = encoder_of(seeded, arch, **settings)
    written(tmp_path / "x.safetensors", encoder, library)
    found = load_encoder(tmp_path / "x.safetensors")
    assert found.metadata == encoder.metadata
    assert found.recognised == ""
    same_features(found, encoder)


def test_twelve_heads_are_said_to_timm_for_no_weight_shows_them(tmp_path: Path, seeded, same_features):
    encoder = encoder_of(seeded, "vit_tiny_patch16_224", image_size=64, attention_heads=12)
    state, build = written(tmp_path / "x.safetensors", encoder, "timm")
    assert build == 'timm.create_model("vit_tiny_patch16_224", num_classes=0, num_heads=12, img_size=64)'
    model = eval(build).eval()
    model.load_state_dict(state, strict=True)
    same_features(model, encoder)
    fewer = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    fewer.load_state_dict(state, strict=True)
    with pytest.raises(AssertionError):
        same_features(fewer, encoder)


def test_the_file_says_how_to_build_what_loads_it(tmp_path: Path, seeded):
    encoder = encoder_of(seeded, "resnet18")
    _, build = written(tmp_path / "x.safetensors", encoder, "timm")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert '"build"' in file.metadata()["groco"]
        assert build.split("(")[0] in file.metadata()["groco"]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("stem", ["small", "small-pad2"])
def test_a_small_stem_is_refused(seeded, library: str, stem: str):
    encoder = encoder_of(seeded, "resnet18", stem=stem, image_size=32)
    with pytest.raises(CheckpointError, match=f"resnet18 with a {stem} stem: plain {library} has none"):
        export(encoder, library)


def test_what_the_other_library_lacks_is_refused(seeded):
    with pytest.raises(CheckpointError, match="torchvision has no test_resnet"):
        export(encoder_of(seeded, "test_resnet", image_size=64), "torchvision")
    with pytest.raises(CheckpointError, match="timm has no shufflenet_v2_x0_5"):
        export(encoder_of(seeded, "torchvision:shufflenet_v2_x0_5", image_size=64), "timm")


def test_the_same_name_for_another_network_is_refused(seeded):
    with pytest.raises(CheckpointError, match=r"efficientnet_b0 is built otherwise in plain timm: see conv_stem"):
        export(encoder_of(seeded, "torchvision:efficientnet_b0", image_size=64), "timm")


def test_other_features_are_refused_where_every_name_fits(seeded):
    encoder = encoder_of(seeded, "resnet18", image_size=64)
    encoder.backbone.layer2[0].conv1.stride = (1, 1)
    encoder.backbone.layer2[0].downsample[0].stride = (1, 1)
    with pytest.raises(CheckpointError, match="plain torchvision computes other features"):
        export(encoder, "torchvision")
