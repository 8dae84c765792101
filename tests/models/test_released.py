"""A file of each source, laid out as its training script writes it, gives the features of the model it was made of.

The references are torchvision's ResNets and timm's plain `VisionTransformer`, never groco's own encoder.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from groco_cli.models import load_encoder
from support.releases import (
    EPOCHS,
    SOURCES,
    TRAINED,
    barlow_twins,
    barlow_twins_flat,
    byol,
    dino,
    groco,
    lightly,
    linear,
    mlp,
    moco_v2,
    named,
    plain,
    simclr,
    simsiam,
    solo_learn,
    supervised,
    swav,
    vicreg,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)


@each_source
def test_each_source_comes_back_with_its_features(tmp_path: Path, source, resnet, same_features):
    reference = resnet(18)
    content, title = source(reference.state_dict(), resnet(18, seed=1).state_dict())
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=source is not groco)
    encoder = load_encoder(tmp_path / "x.pth")
    same_features(encoder, reference)
    metadata = encoder.metadata
    assert (metadata.arch, metadata.method, encoder.feature_dim) == ("resnet18", SOURCES[source], 512)
    assert (metadata.image_size, metadata.resize) == (224, 256)
    assert encoder.recognised.startswith(f"{title}, ResNet-18")
    assert metadata.epoch == EPOCHS.get(source, 0 if SOURCES[source] == "unknown" else 200)
    normalisation = ((0, 0, 0), (1, 1, 1)) if source is simclr else IMAGENET
    assert (metadata.mean, metadata.std) == normalisation
    assert not any(module.training for module in encoder.modules())


@each_source
def test_without_one_weight_each_source_is_refused_naming_it(tmp_path: Path, source, resnet):
    state = resnet(18).state_dict()
    del state["layer2.1.conv2.weight"]
    content, title = source(state, resnet(18, seed=1).state_dict())
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth .*ResNet-18.*{title}: see layer2\.1\.conv2\.weight \(1 missing\)"):
        load_encoder(tmp_path / "x.pth")


def test_the_released_size_comes_back_too(tmp_path: Path, resnet, same_features):
    reference = resnet(50)
    torch.save(simsiam(reference.state_dict(), {})[0], tmp_path / "x.pth")
    encoder = load_encoder(tmp_path / "x.pth")
    assert (encoder.metadata.arch, encoder.feature_dim) == ("resnet50", 2048)
    same_features(encoder, reference)


@pytest.mark.parametrize("source", [swav, vicreg])
def test_padding_before_the_first_convolution_is_torchvisions_padding(tmp_path: Path, source, resnet, same_features):
    """SwAV's and VICReg's ResNets: ConstantPad2d(1), then a convolution that pads by 2."""
    reference = resnet(18)
    content, _ = source(reference.state_dict(), reference.state_dict())
    torch.save(content, tmp_path / "x.pth")
    reference.conv1.padding = (2, 2)
    for size in (64, 65):
        same_features(load_encoder(tmp_path / "x.pth"), nn.Sequential(nn.ConstantPad2d(1, 0.0), reference), size)


def vit(width: int, heads: int, patch: int = 16, size: int = 64) -> VisionTransformer:
    return VisionTransformer(
        img_size=size, patch_size=patch, embed_dim=width, depth=12, num_heads=heads, num_classes=0, qkv_bias=True
    )


def fixed_positions(grid: int, width: int) -> Tensor:
    """MoCo v3's `build_2d_sincos_position_embedding`, a number at a time."""
    quarter = width // 4
    places = torch.zeros(1, grid * grid + 1, width)
    for row in range(grid):
        for column in range(grid):
            for i in range(quarter):
                frequency = 1 / 10000 ** (i / quarter)
                place = places[0, 1 + row * grid + column]
                place[i], place[quarter + i] = math.sin(row * frequency), math.cos(row * frequency)
                place[2 * quarter + i] = math.sin(column * frequency)
                place[3 * quarter + i] = math.cos(column * frequency)
    return places


def test_moco_v3s_vit_small_has_the_twelve_heads_of_its_own(tmp_path: Path, seeded, same_features):
    reference = seeded(vit(384, heads=12))
    with torch.no_grad():
        reference.pos_embed.copy_(fixed_positions(4, 384))
    weights = named("module.base_encoder.", reference.state_dict(), mlp("head", 384, 16, 8))
    weights |= named("module.momentum_encoder.", reference.state_dict(), mlp("head", 384, 16, 8))
    torch.save({**TRAINED, "arch": "vit_small", "state_dict": weights}, tmp_path / "x.pth")
    encoder = load_encoder(tmp_path / "x.pth")
    same_features(encoder, reference)
    assert (encoder.metadata.arch, encoder.metadata.attention_heads) == ("vit_small_patch16_224", 12)
    assert encoder.metadata.image_size == 64
    assert encoder.recognised.startswith("MoCo v3, base encoder, ViT-S/16; left out: momentum_encoder, head")


def dinos_vit(reference: nn.Module) -> dict[str, object]:
    content, _ = dino(reference.state_dict(), reference.state_dict())
    teacher = {name.removeprefix("module."): t for name, t in content["teacher"].items()}  # no BN: not wrapped
    return {**content, "teacher": teacher}


@pytest.mark.parametrize(
    ("container", "told"), [(dinos_vit, "DINO, teacher, ViT-Ti/16"), (lambda m: m.state_dict(), "plain weights, ViT-")]
)
def test_dinos_vits_come_back(tmp_path: Path, seeded, same_features, container: Callable[..., object], told: str):
    reference = seeded(vit(192, heads=3))
    torch.save(container(reference), tmp_path / "x.pth")
    encoder = load_encoder(tmp_path / "x.pth")
    same_features(encoder, reference)
    assert encoder.recognised.startswith(told)
    assert (encoder.metadata.image_size, encoder.metadata.resize, encoder.metadata.attention_heads) == (64, 64, 0)


@pytest.mark.parametrize("source", [solo_learn, lightly])
def test_small_stems_pad_as_their_source_does(tmp_path: Path, source, resnet, seeded, same_features):
    reference = resnet(18)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=2 if source is solo_learn else 1, bias=False)
    reference.maxpool = nn.Identity()
    seeded(reference)
    torch.save(source(reference.state_dict(), reference.state_dict())[0], tmp_path / "x.ckpt")
    encoder = load_encoder(tmp_path / "x.ckpt")
    same_features(encoder, reference, size=32)
    assert (encoder.metadata.image_size, encoder.metadata.resize) == (32, 32)
    assert encoder.metadata.stem == ("small-pad2" if source is solo_learn else "small")


def test_flat_safetensors_of_others_are_read(tmp_path: Path, resnet, same_features):
    reference = resnet(18)
    save_file(reference.state_dict() | linear("fc", 10, 512), tmp_path / "x.safetensors", {"format": "pt"})
    encoder = load_encoder(tmp_path / "x.safetensors")
    same_features(encoder, reference)
    assert "ImageNet's normalisation assumed" in encoder.recognised
    assert encoder.recognised.endswith("left out: fc")


def test_what_lies_beside_the_encoder_is_reported(tmp_path: Path, resnet):
    state = resnet(18).state_dict()
    torch.save(moco_v2(state, state)[0], tmp_path / "x.pth")
    recognised = load_encoder(tmp_path / "x.pth").recognised
    assert recognised == "MoCo v2, ResNet-18; left out: encoder_k, queue, queue_ptr, fc"


def test_a_run_on_one_gpu_has_no_prefix_of_the_wrapper(tmp_path: Path, resnet, same_features):
    reference = resnet(18)
    content, _ = simsiam(reference.state_dict(), {})
    content["state_dict"] = {name.removeprefix("module."): t for name, t in content["state_dict"].items()}
    torch.save(content, tmp_path / "x.pth")
    encoder = load_encoder(tmp_path / "x.pth")
    same_features(encoder, reference)
    assert encoder.metadata.method == "simsiam"


def test_the_same_names_are_told_apart_by_what_lies_beside_them(tmp_path: Path, resnet):
    """`module.encoder.` in SimSiam's and in GroCo's files, `module.backbone.` in four."""
    state = resnet(18).state_dict()
    for source in (simsiam, groco, barlow_twins, vicreg, dino, solo_learn):
        torch.save(source(state, state)[0], tmp_path / "x.pth")
        assert load_encoder(tmp_path / "x.pth").metadata.method == SOURCES[source]


def test_weights_that_were_trained_in_torch_are_not_taken_for_simclrs(tmp_path: Path, resnet):
    state = resnet(18).state_dict()
    state["bn1.num_batches_tracked"].add_(100)
    torch.save(simclr(state, {})[0], tmp_path / "x.pth")
    assert load_encoder(tmp_path / "x.pth").metadata.method == "unknown"


def test_what_was_guessed_is_said_and_may_be_said_otherwise(tmp_path: Path, resnet, same_features):
    """torchvision's weights, untrained or ported, saved as simclr-converter saves SimCLR's."""
    reference = resnet(18)
    torch.save(simclr(reference.state_dict(), {})[0], tmp_path / "x.pth")
    guessed = load_encoder(tmp_path / "x.pth")
    for said in ("taken for SimCLR, converted", "never counted a batch", "mean 0, std 1", "--method supervised"):
        assert said in guessed.doubt
    assert "\n" not in guessed.doubt
    for method, normalisation in (("supervised", IMAGENET), ("byol", IMAGENET), ("simclr", ((0, 0, 0), (1, 1, 1)))):
        told = load_encoder(tmp_path / "x.pth", method=method)
        same_features(told, reference)
        assert (told.metadata.method, told.metadata.mean, told.metadata.std) == (method, *normalisation)
        assert told.doubt == ""
    with pytest.raises(ValueError, match="unknown method 'supervized'"):
        load_encoder(tmp_path / "x.pth", method="supervized")


def test_simclrs_weights_without_what_was_around_them_are_doubted(tmp_path: Path, resnet, same_features):
    """They are laid out just as torchvision's, which are read as they ever were."""
    reference = resnet(18)
    for content in (simclr(reference.state_dict(), {})[0]["state_dict"], supervised(reference.state_dict(), {})[0]):
        torch.save(content, tmp_path / "x.pth")
        found = load_encoder(tmp_path / "x.pth")
        same_features(found, reference)
        assert (found.metadata.method, found.metadata.mean) == ("unknown", IMAGENET[0])
        for said in (
            "taken for plain weights",
            "never counted a batch",
            "ImageNet's",
            "x.pth OUT.safetensors --method",
        ):
            assert said in found.doubt
        assert found.doubt.endswith("--method simclr")
        assert "\n" not in found.doubt
    told = load_encoder(tmp_path / "x.pth", method="simclr")
    assert (told.metadata.method, told.metadata.mean, told.metadata.std) == ("simclr", (0, 0, 0), (1, 1, 1))
    assert told.doubt == load_encoder(tmp_path / "x.pth", method="supervised").doubt == ""


def test_what_is_certain_casts_no_doubt(tmp_path: Path, resnet):
    state = resnet(18).state_dict()
    counted = {name: tensor + name.endswith("num_batches_tracked") for name, tensor in state.items()}
    for content in (
        *(source(state, state)[0] for source in (simsiam, plain, barlow_twins_flat, byol)),
        supervised(counted, {})[0],
    ):
        torch.save(content, tmp_path / "x.pth")
        assert load_encoder(tmp_path / "x.pth").doubt == ""


def test_plain_weights_are_what_they_are_said_to_be(tmp_path: Path, resnet):
    torch.save(plain(resnet(18).state_dict(), {})[0], tmp_path / "x.pth")
    said = load_encoder(tmp_path / "x.pth", method="simclr")
    assert (said.metadata.method, said.metadata.mean, said.metadata.std) == ("simclr", (0, 0, 0), (1, 1, 1))
    assert load_encoder(tmp_path / "x.pth", method="byol").metadata.mean == IMAGENET[0]
    with pytest.raises(ValueError, match="unknown method 'simclear'"):
        load_encoder(tmp_path / "x.pth", method="simclear")


def test_what_a_file_shows_is_not_talked_over(tmp_path: Path, resnet):
    torch.save(simsiam(resnet(18).state_dict(), {})[0], tmp_path / "x.pth")
    assert load_encoder(tmp_path / "x.pth", method="simsiam").metadata.method == "simsiam"
    with pytest.raises(ValueError, match="recognised as SimSiam, not byol"):
        load_encoder(tmp_path / "x.pth", method="byol")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"state_dict": {"module.net.conv.weight": torch.zeros(1)}, "epoch": 3}, r"state_dict, epoch: state_dict of 1"),
        ({}, "nothing"),
        ({"epoch": 1}, "it holds epoch"),
        ({"w": torch.zeros(1)}, "it holds w"),
        ({1: {2: torch.zeros(1)}}, "it holds 1"),
    ],
)
def test_a_file_that_matches_nothing_says_what_it_holds(tmp_path: Path, content: object, told: str):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth: no checkpoint that groco knows.*{told}") as caught:
        load_encoder(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


ODD = {"no dimension": torch.tensor(1.0), "empty": torch.zeros(0, 0), "sparse": torch.zeros(64, 3, 7, 7).to_sparse()}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.conv2.weight", "bn1.running_mean"])
def test_odd_tensors_under_a_known_name_are_told(tmp_path: Path, resnet, odd: str, name: str):
    state = resnet(18).state_dict() | {name: ODD[odd]}
    torch.save(simclr(state, {})[0], tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth"):
        load_encoder(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["pos_embed", "patch_embed.proj.weight"])
@pytest.mark.parametrize("odd", ["no dimension", "empty"])
def test_odd_tensors_of_a_vit_are_told(tmp_path: Path, odd: str, name: str):
    torch.save(vit(192, heads=3).state_dict() | {name: ODD[odd]}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: a ViT without patch_embed\.proj\.weight or pos_embed"):
        load_encoder(tmp_path / "x.pth")


def test_many_missing_weights_are_counted(tmp_path: Path, resnet):
    state = {name: t for name, t in resnet(18).state_dict().items() if not name.startswith("layer4.")}
    torch.save(simsiam(state, {})[0], tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"see layer4\.0\.conv1\.weight, .*, … \(25 missing\)"):
        load_encoder(tmp_path / "x.pth")
