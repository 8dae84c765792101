"""Features against a loop over single pictures, prepared by Pillow."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from groco_cli import console
from groco_cli.data.sources import FileSource, MemorySource
from groco_cli.errors import GrocoError
from groco_cli.evaluation.features import extract_features
from groco_cli.evaluation.linear_features import AugmentedFeatures
from groco_cli.evaluation.retrieval_features import retrieval_features
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.models import Encoder, EncoderMetadata, create_encoder

CPU = torch.device("cpu")
PICTURES = EncoderMetadata(arch="pixels", image_size=24, resize=28, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))


def extracted(encoder: Encoder, source: MemorySource | FileSource, *, workers: int = 0, **options: object) -> Tensor:
    return extract_features(encoder, source, device=CPU, workers=workers, **options)


def prepared(picture: Image.Image) -> Tensor:
    """Shorter side 28 by Pillow's bicubic, the central 24 by 24, normalised."""
    shorter = min(picture.size)
    width, height = (round(side * 28 / shorter) for side in picture.size)
    left, top = round((width - 24) / 2), round((height - 24) / 2)
    cut = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 24, top + 24))
    pixels = (np.asarray(cut) / 255 - np.array(PICTURES.mean)) / np.array(PICTURES.std)
    return torch.from_numpy(pixels.transpose(2, 0, 1)).float()


@pytest.fixture
def encoder() -> Encoder:
    """A small network with BNs, in training mode, whose statistics are not those of a start."""
    torch.manual_seed(0)
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32))
    encoder(torch.randn(8, 3, 32, 32))
    return encoder


@pytest.fixture
def files(picture_folder: Callable[..., Path]) -> FileSource:
    names = [f"{number}.png" for number in range(7)]
    folder = picture_folder(*names[:4], size=(60, 45))
    picture_folder(*names[4:], size=(30, 40))
    return FileSource(tuple(folder / name for name in names), None, ())


@pytest.mark.parametrize("count", [1, 8, 10])
def test_every_picture_is_seen_once_in_order_the_last_batch_partial(encoder: Encoder, noise, count: int):
    source, counted = noise(count), []
    features = extracted(encoder, source, batch_size=4, advance=counted.append)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (encoder.metadata.mean, encoder.metadata.std))
    encoder.eval()
    with torch.no_grad():
        expected = torch.cat([encoder(((image / 255 - mean) / std)[None]) for image in source.images])
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert counted == {1: [1], 8: [4, 4], 10: [4, 4, 2]}[count]
    assert (features.dtype, features.device, features.requires_grad) == (torch.float32, CPU, False)


def test_files_are_resized_cropped_and_normalised_as_their_checkpoint_says(files: FileSource):
    features = extracted(Encoder(nn.Flatten(), 3 * 24 * 24, PICTURES), files, batch_size=3)
    expected = torch.stack([prepared(Image.open(path)) for path in files.paths])
    error = (features.view(7, 3, 24, 24) - expected).abs() * torch.tensor(PICTURES.std).view(3, 1, 1) * 255
    assert error.max() < 1.01  # one grey value: where the two round


def test_pictures_in_memory_and_in_files_are_shown_alike(files: FileSource):
    encoder = Encoder(nn.Flatten(), 3 * 24 * 24, PICTURES)
    for numbers in (range(4), range(4, 7)):
        in_memory = MemorySource(torch.stack([files.load(i) for i in numbers]), None, ())
        in_files = FileSource(tuple(files.paths[i] for i in numbers), None, ())
        torch.testing.assert_close(extracted(encoder, in_memory), extracted(encoder, in_files), rtol=0, atol=0)


def test_workers_change_nothing(files: FileSource):
    encoder = Encoder(nn.Flatten(), 3 * 24 * 24, PICTURES)
    alone = extracted(encoder, files, batch_size=2)
    torch.testing.assert_close(extracted(encoder, files, batch_size=2, workers=2), alone, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(encoder: Encoder, noise, training: bool):
    encoder.train(training)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    extracted(encoder, noise(6), batch_size=4)
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)
    assert {module.training for module in encoder.modules()} == {training}
    encoder.train()(torch.randn(4, 3, 32, 32)).sum().backward()  # and can still learn


def test_a_picture_that_cannot_be_decoded_is_told_by_name(files: FileSource):
    files.paths[5].write_bytes(b"no picture")
    with pytest.raises(GrocoError, match=r"cannot decode .*5\.png"):
        extracted(Encoder(nn.Flatten(), 3 * 24 * 24, PICTURES), files)


def test_the_first_picture_whose_feature_is_not_finite_is_told(noise):
    class Damaged(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features = images.flatten(1)[:, :5].clone()
            features[images.flatten(1).mean(dim=1) > 0.2] = torch.nan
            return features

    source = noise(9)
    source.images.copy_(torch.zeros_like(source.images))
    source.images[6:] = 255
    metadata = EncoderMetadata(arch="damaged", image_size=32, resize=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(GrocoError, match="feature of image 6 is not finite"):
        extracted(Encoder(Damaged(), 5, metadata), source, batch_size=4)


class Narrow(nn.Module):
    """Flattens at most so many images at once, for want of memory for more; counts what it was given."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.given = room, []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.flatten(1)


@pytest.mark.parametrize(("room", "given"), [(8, [8, 2]), (7, [8, 4, 4, 2]), (1, [8, 4, 2, *[1] * 8, 1, 1])])
def test_images_that_do_not_fit_are_halved_aloud_and_so_are_all_that_follow(noise, monkeypatch, room, given):
    noted: list[str] = []
    monkeypatch.setattr(console, "note", noted.append)
    narrow, source = Narrow(room), noise(10)
    metadata = EncoderMetadata(arch="narrow", image_size=32, resize=32)
    features = extracted(Encoder(narrow, 3 * 32 * 32, metadata), source, batch_size=8)
    assert torch.equal(features, extracted(Encoder(nn.Flatten(), 3 * 32 * 32, metadata), source))
    assert narrow.given == given
    assert [line.rpartition(" ")[2] for line in noted] == {8: [], 7: ["4"], 1: ["4", "2", "1"]}[room]


def test_where_not_even_one_image_fits_it_is_an_error_of_one_line(noise, monkeypatch):
    monkeypatch.setattr(console, "note", lambda _: None)
    encoder = Encoder(Narrow(0), 3 * 32 * 32, EncoderMetadata(arch="narrow", image_size=32, resize=32))
    with pytest.raises(GrocoError, match="no memory for a single image") as caught:
        extracted(encoder, noise(3), batch_size=2)
    assert "--device cpu" in caught.value.hint


@pytest.fixture
def in_tf32(encoder: Encoder) -> Iterator[list[set[str]]]:
    """TF32 allowed everywhere; what products and convolutions of float32 are computed in while the encoder looks."""
    backends = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "tf32"
    seen: list[set[str]] = []
    encoder.register_forward_hook(lambda *_: seen.append({backend.fp32_precision for backend in backends}))
    yield seen
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision


def test_float32_features_are_computed_in_float32_and_torch_is_left_as_it_was(encoder, noise, in_tf32, picture_folder):
    extracted(encoder, noise(2))
    protocol = RetrievalProtocol(name="dino", crop_query=False, image_size=32, scales=(1.0,))
    path = picture_folder("0.png") / "0.png"
    list(retrieval_features(encoder, [path], protocol=protocol, device=CPU, workers=0))
    augmented = AugmentedFeatures(encoder, noise(2), batch_size=2, seed=0, workers=0, device=CPU, precision="fp32")
    list(augmented.epoch(0))
    assert in_tf32 == [{"ieee"}] * 3
    assert {torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision} == {"tf32"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_features_of_a_gpu_are_those_of_the_cpu_but_for_rounding(noise):
    torch.manual_seed(0)
    encoder = create_encoder(EncoderMetadata(arch="resnet18", image_size=64, resize=64))
    on_cpu, on_gpu = (
        extract_features(encoder, noise(16, size=(64, 64)), device=torch.device(name), workers=0)
        for name in ("cpu", "cuda")
    )
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-5)
