from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from groco_cli.models import Encoder, EncoderMetadata, create_encoder


def created(arch: str, image_size: int = 32, **options: str) -> Encoder:
    return create_encoder(EncoderMetadata(arch=arch, image_size=image_size, **options))


def images(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def input_of(encoder: Encoder, place: str, size: int) -> Tensor:
    """What a module of the backbone is given when the encoder looks at a picture."""
    seen = []
    encoder.backbone.get_submodule(place).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder.eval()(images(1, size))
    return seen[0]


@pytest.mark.parametrize(
    ("arch", "library"),
    [
        ("resnet18", "timm"),
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("shufflenet_v2_x0_5", "torchvision"),
    ],
)
def test_the_prefix_chooses_the_library_and_timm_comes_first(arch: str, library: str):
    backbone = created(arch, image_size=64).backbone
    assert type(backbone).__module__.split(".")[0] == library


def test_features_are_timms_pooled_ones():
    encoder = created("resnet18").eval()
    theirs = timm.create_model("resnet18", num_classes=10).eval()
    theirs.load_state_dict(encoder.backbone.state_dict() | {"fc.weight": theirs.fc.weight, "fc.bias": theirs.fc.bias})
    expected = theirs.forward_features(images(3)).mean(dim=(2, 3))
    features = encoder(images(3))
    assert features.shape == (3, encoder.feature_dim) == (3, 512)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(
    ("arch", "classifier", "feature_dim"),
    [("shufflenet_v2_x0_5", "fc", 1024), ("mobilenet_v3_small", "classifier.3", 1024)],
)
def test_features_are_what_torchvisions_classifier_sees(arch: str, classifier: str, feature_dim: int):
    encoder = created(f"torchvision:{arch}").eval()
    theirs = torchvision.models.get_model(arch).eval()
    missing, unexpected = theirs.load_state_dict(encoder.backbone.state_dict(), strict=False)
    assert (set(missing), unexpected) == ({f"{classifier}.weight", f"{classifier}.bias"}, [])
    seen = []
    theirs.get_submodule(classifier).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    theirs(images(2))
    features = encoder(images(2))
    assert features.shape == (2, encoder.feature_dim) == (2, feature_dim)
    torch.testing.assert_close(features, seen[0])


@pytest.mark.parametrize("arch", ["resnet18", "torchvision:resnet18"])
@pytest.mark.parametrize(("stem", "side"), [("imagenet", 8), ("small", 32)])
def test_only_the_imagenet_stem_shrinks_the_picture(arch: str, stem: str, side: int):
    encoder = created(arch, stem=stem)
    assert input_of(encoder, "layer1", 32).shape == (1, 64, side, side)
    conv = encoder.backbone.conv1
    assert (conv.kernel_size, conv.stride) == (((3, 3), (1, 1)) if stem == "small" else ((7, 7), (2, 2)))
    assert conv.bias is None
    assert encoder.feature_dim == 512


@pytest.mark.parametrize("arch", ["test_vit", "resnet10t", "torchvision:mobilenet_v3_small"])
def test_a_small_stem_is_refused_where_there_is_no_single_first_convolution(arch: str):
    with pytest.raises(ValueError, match=f"small stem is for ResNets.*'{arch}'"):
        created(arch, stem="small")


@pytest.mark.parametrize("arch", ["resnet18", "torchvision:resnet18", "timm:resnet50"])
def test_residual_branches_add_nothing_at_the_start(arch: str):
    encoder = created(arch)
    checked = []

    def check(block: nn.Module, given: tuple[Tensor], found: Tensor) -> None:
        shortcut = given[0] if block.downsample is None else block.downsample(given[0])
        checked.append(torch.equal(found, shortcut.relu()))

    encoder.eval()  # in training mode the downsampling BN would be run twice
    for stage in (encoder.backbone.get_submodule(f"layer{i}") for i in range(1, 5)):
        for block in stage:
            block.register_forward_hook(check)
    encoder(images(2))
    assert len(checked) == (16 if "50" in arch else 8)
    assert all(checked)


def test_a_transformer_is_built_for_the_size_it_looks_at_and_takes_others():
    encoder = created("test_vit", image_size=64).eval()
    assert encoder.backbone.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    for size in (64, 96, 32):
        features = encoder(images(2, size))
        assert features.shape == (2, encoder.feature_dim)
        assert features.isfinite().all()


@pytest.mark.parametrize(("arch", "size"), [("test_vit", 30), ("torchvision:alexnet", 16)])
def test_a_size_that_the_backbone_cannot_look_at_is_told(arch: str, size: int):
    with pytest.raises(ValueError, match=f"cannot look at {size}-pixel images"):
        created(arch, image_size=size)


@pytest.mark.parametrize(
    ("arch", "near"),
    [
        ("resnet81", "'resnet18'"),
        ("torchvision:mobilenet_v3_smal", "'mobilenet_v3_small'"),
        ("tim:resnet18", "'resnet18'"),
    ],
)
def test_an_unknown_architecture_is_told_with_the_nearest(arch: str, near: str):
    with pytest.raises(ValueError, match=f"unknown architecture '{arch}'; did you mean .*{near}"):
        created(arch)


def test_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(ValueError, match=r"unknown architecture 'qqqqqqqqqq'$"):
        created("qqqqqqqqqq")


def test_a_backbone_without_a_linear_classifier_is_refused():
    with pytest.raises(ValueError, match="'squeezenet1_1' has no linear classifier"):
        created("torchvision:squeezenet1_1")


def test_an_unknown_stem_is_told_with_those_there_are():
    with pytest.raises(ValueError, match="unknown stem 'cifar'; there are imagenet and small"):
        created("test_resnet", stem="cifar")


def test_a_new_encoder_is_in_training_mode_with_untouched_statistics():
    encoder = created("test_resnet")
    assert all(module.training for module in encoder.modules())
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert int(norm.num_batches_tracked) == 0
        assert not norm.running_mean.any()


def test_the_same_seed_gives_the_same_weights():
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return created("test_resnet").state_dict()

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1)["backbone.conv1.0.weight"], weights(2)["backbone.conv1.0.weight"])


def test_metadata_stay_with_the_encoder():
    metadata = EncoderMetadata(arch="test_resnet", image_size=48, method="groco", epoch=3)
    assert create_encoder(metadata).metadata == metadata
    assert replace(metadata, epoch=4) != metadata


def test_the_published_pictures_are_the_default():
    metadata = EncoderMetadata(arch="resnet50")
    assert (metadata.image_size, metadata.resize) == (224, 256)
    assert (metadata.mean, metadata.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
