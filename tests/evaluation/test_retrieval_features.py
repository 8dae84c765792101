"""Features under the two protocols against DINO's way: one picture at a time, Pillow and torchvision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvf
from PIL import Image
from torch import Tensor, nn

from groco_cli.data.decoding import decode
from groco_cli.errors import GrocoError
from groco_cli.evaluation.retrieval_features import retrieval_features, thumbnail
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol, named_protocol
from groco_cli.models import Encoder, EncoderMetadata, create_encoder

CPU = torch.device("cpu")
SMALL = RetrievalProtocol(name="dino", crop_query=False, image_size=48, scales=(1.0,))
METADATA = EncoderMetadata(arch="test_resnet", image_size=48, resize=48, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
SIZES = [(60, 45), (100, 75), (30, 41), (60, 45), (48, 48), (200, 31), (75, 100)]


@pytest.fixture
def encoder() -> Encoder:
    """A small network in training mode whose BN statistics are not those of a start."""
    torch.manual_seed(0)
    encoder = create_encoder(METADATA)
    for _ in range(20):
        encoder(torch.randn(16, 3, 48, 48))
    return encoder


@pytest.fixture
def pictures(picture_folder) -> list[Path]:
    for number, size in enumerate(SIZES):
        folder = picture_folder(f"{number}.png", size=size)
    return [folder / f"{number}.png" for number in range(len(SIZES))]


def extracted(encoder: Encoder, paths, boxes=None, protocol=SMALL, workers: int = 0, **options) -> Tensor:
    blocks = retrieval_features(encoder, paths, boxes, protocol=protocol, device=CPU, workers=workers, **options)
    return torch.cat(list(blocks))


def one_by_one(encoder: Encoder, paths, boxes, protocol: RetrievalProtocol) -> Tensor:
    """As DINO's eval_image_retrieval.py and the sets' own example_process_images.py do it."""
    features = []
    for path, box in zip(paths, boxes or [None] * len(paths), strict=True):
        picture = Image.open(path).convert("RGB")
        if box is not None:
            picture = picture.crop(box)
        picture.thumbnail((protocol.image_size, protocol.image_size), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(picture) / np.float32(255)).permute(2, 0, 1)
        image = tvf.normalize(pixels, METADATA.mean, METADATA.std)[None]
        total = 0
        for scale in protocol.scales:
            seen = image if scale == 1 else F.interpolate(image, scale_factor=scale, mode="bilinear")
            total = total + encoder.eval()(seen)[0]
        feature = total / len(protocol.scales)
        features.append(feature / feature.norm())
    return torch.stack(features)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2**-0.5, 0.5)])
@pytest.mark.parametrize("cropped", [False, True])
def test_features_are_those_of_one_picture_at_a_time(encoder: Encoder, pictures, scales, cropped: bool):
    protocol = replace(SMALL, scales=scales)
    boxes = [(2.5, 3.5, 25.2, 28.7)] * len(pictures) if cropped else None
    found = extracted(encoder, pictures, boxes, protocol, batch_size=4)
    with torch.no_grad():
        expected = one_by_one(encoder, pictures, boxes, protocol)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected[0] - expected[1]).norm() > 0.05  # features that tell pictures apart


def test_the_published_settings():
    for name in ("dino", "revisitop"):
        oxford, paris, own = (named_protocol(name, dataset) for dataset in ("roxford5k", "rparis6k", ""))
        assert oxford == own
        assert (oxford.image_size, oxford.scales, oxford.whiten) == (224, (1.0,), None)
        assert (paris.image_size, paris.whiten) == (512, None)
        assert paris.scales == pytest.approx((1, 0.70710678, 0.5))
        assert oxford.crop_query == paris.crop_query == (name == "revisitop")


@pytest.mark.parametrize(("size", "seen"), [((100, 75), (48, 36)), ((75, 100), (36, 48)), ((30, 41), (30, 41))])
def test_larger_pictures_are_shrunk_in_their_aspect_and_smaller_ones_left(size, seen):
    pixels = torch.randint(256, (3, *size[::-1]), dtype=torch.uint8)
    shown = thumbnail(pixels, 48)
    assert (shown.shape, shown.dtype) == ((3, *seen[::-1]), torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail((48, 48), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(shown.permute(1, 2, 0), np.asarray(picture))


def test_a_box_is_cut_out_before_anything_else():
    pixels = torch.randint(256, (3, 40, 50), dtype=torch.uint8)
    torch.testing.assert_close(thumbnail(pixels, 64, (5, 10, 35, 30)), pixels[:, 10:30, 5:35], rtol=0, atol=0)


def test_what_a_box_holds_outside_the_picture_is_black():
    pixels = torch.full((3, 10, 10), 200, dtype=torch.uint8)
    shown = thumbnail(pixels, 64, (-5, 0, 5, 10))
    assert shown.shape == (3, 10, 10)
    assert (shown[:, :, :5] == 0).all()
    assert (shown[:, :, 5:] == 200).all()


@pytest.mark.parametrize("box", [(50, 0, 60, 10), (0, -9, 10, 0), (3.1, 0, 3.3, 10)])
def test_a_box_with_nothing_in_it_is_told(encoder: Encoder, pictures, box):
    with pytest.raises(GrocoError, match=r"0\.png: bbx .* holds nothing of its 60×45 pixels") as failed:
        extracted(encoder, pictures, [(left + 10 * (left >= 50), *rest) for left, *rest in [box]] * len(pictures))
    assert "left, top, right, bottom" in failed.value.hint


@pytest.mark.parametrize("box", [(0, 0, 20000, 20000), (-1e5, -1e5, 1e5, 1e5), (0, 0, 1e300, 1e300), (0, 0, 1e4, 1e4)])
@pytest.mark.filterwarnings("error")
def test_a_box_that_no_picture_fills_is_told(encoder: Encoder, pictures, box):
    with pytest.raises(GrocoError, match=r"query .*0\.png: bbx .* is larger than any picture may be") as failed:
        extracted(encoder, pictures, [box] * len(pictures))
    assert failed.value.hint == "correct the ground truth: left, top, right, bottom in pixels"
    assert len(failed.value.message) < 300


def test_each_picture_has_a_feature_of_unit_length(encoder: Encoder, pictures):
    blocks = list(retrieval_features(encoder, pictures, protocol=SMALL, device=CPU, workers=0, batch_size=3))
    assert list(map(len, blocks)) == [3, 3, 1]
    features = torch.cat(blocks)
    assert (features.shape, features.dtype) == ((7, encoder.feature_dim), torch.float32)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(7))


def test_workers_change_nothing(encoder: Encoder, pictures):
    alone = extracted(encoder, pictures, batch_size=4)
    torch.testing.assert_close(extracted(encoder, pictures, batch_size=4, workers=2), alone, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(encoder: Encoder, pictures, training: bool):
    encoder.train(training)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    extracted(encoder, pictures)
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)
    assert {module.training for module in encoder.modules()} == {training}


def test_a_transformer_is_shown_pictures_in_their_aspect_down_to_its_last_whole_patch(picture_folder):
    torch.manual_seed(0)
    vit = create_encoder(replace(METADATA, arch="test_vit"))
    path = picture_folder("wide.png", size=(45, 39)) / "wide.png"
    trimmed = path.with_name("trimmed.png")
    Image.open(path).crop((0, 0, 32, 32)).save(trimmed)
    features = extracted(vit, [path, trimmed])
    torch.testing.assert_close(features[0], features[1])
    wide = picture_folder("wider.png", size=(48, 39)) / "wider.png"
    with torch.no_grad():
        image = tvf.normalize(decode(wide)[None, :, :32] / 255, METADATA.mean, METADATA.std)
        torch.testing.assert_close(extracted(vit, [wide]), F.normalize(vit.eval()(image), dim=1), rtol=1e-4, atol=1e-5)


def test_a_picture_smaller_than_a_transformers_patch_is_told(picture_folder):
    vit = create_encoder(replace(METADATA, arch="test_vit"))
    with pytest.raises(
        GrocoError, match=r"flat\.png is too narrow: at 40×9 pixels .* than the 16×16 .* test_vit needs"
    ):
        extracted(vit, [picture_folder("flat.png", size=(40, 9)) / "flat.png"])


def test_a_picture_of_which_nothing_is_left_at_a_scale_is_told(encoder: Encoder, pictures, picture_folder):
    narrow = picture_folder("narrow.png", size=(4, 300)) / "narrow.png"  # a thumbnail of 1×48
    assert extracted(encoder, [*pictures, narrow]).shape[0] == len(pictures) + 1
    with pytest.raises(GrocoError, match=r"narrow\.png is too narrow: at 1×48 pixels and scale 0\.5, less") as failed:
        extracted(encoder, [*pictures, narrow], protocol=replace(SMALL, scales=(1.0, 0.5)))
    assert failed.value.hint == "take it out, or have it shown larger: --image-size, --scales"
    larger = extracted(encoder, [narrow], protocol=replace(SMALL, image_size=300, scales=(1.0, 0.5)))
    assert larger.isfinite().all()


def test_an_encoder_of_one_fixed_size_is_told(pictures):
    fixed = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 8)), 8, METADATA)
    with pytest.raises(GrocoError, match="test_resnet cannot look at a picture of 48×36 pixels") as failed:
        extracted(fixed, pictures)
    assert "ResNet" in failed.value.hint
    assert "\n" not in failed.value.message


def test_the_first_picture_whose_feature_is_not_finite_is_told(pictures):
    class Damaged(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features = images.mean(dim=(2, 3))
            return features / (0.0 if images.shape[-1] == 30 else 1.0)

    damaged = Encoder(Damaged(), 3, METADATA)
    for batch_size in (2, 64):
        with pytest.raises(GrocoError, match=r"feature of .*2\.png is not finite") as failed:
            extracted(damaged, pictures, batch_size=batch_size)
        assert "damaged or diverged" in failed.value.hint


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_decoded_is_told_by_name(encoder: Encoder, pictures, workers: int):
    pictures[4].write_bytes(b"no picture")
    with pytest.raises(GrocoError, match=r"cannot decode .*4\.png") as failed:
        extracted(encoder, pictures, workers=workers)
    assert f"groco data {pictures[4].parent}" in failed.value.hint


def test_real_photographs_keep_what_they_show(imagenet_jpegs: Path):
    paths = sorted(imagenet_jpegs.glob("*.jpg"))[:12]
    for path in paths:
        image = decode(path)
        shown = thumbnail(image, 224)
        assert max(shown.shape[1:]) == min(224, max(image.shape[1:]))
        assert shown.float().mean() == pytest.approx(image.float().mean(), abs=3)
