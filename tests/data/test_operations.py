import io
import itertools
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from groco_cli.data import operations
from groco_cli.data.operations import colour_jitter, gaussian_blur

IMAGENET = Path(__file__).parents[3] / "shared/data/imagenet-sample/imagenet-sample-000000.tar"
Pictures = Callable[..., Tensor]
needs_imagenet = pytest.mark.skipif(not IMAGENET.exists(), reason=f"no {IMAGENET}")


def photographs(n: int) -> list[Image.Image]:
    with tarfile.open(IMAGENET) as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")][:n]
        return [Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB") for name in names]


def one_by_one(images: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    rows = zip(images, *(values.tolist() for values in parameters), strict=True)
    return torch.stack([operation(image, *row) for image, *row in rows])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", 0.0, 2.0), ("contrast", 0.0, 2.0), ("saturation", 0.0, 2.0), ("hue", -0.5, 0.5)],
)
def test_adjustments_equal_torchvisions(pictures: Pictures, name: str, low: float, high: float):
    images = pictures(64)
    factors = torch.linspace(low, high, 64)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    found = getattr(operations, f"adjust_{name}")(images, factors)
    expected = one_by_one(images, getattr(tvf, f"adjust_{name}"), factors)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@settings(deadline=None)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    shift=st.floats(-0.5, 0.5, width=32) | st.sampled_from([i / 6 for i in range(-3, 4)]),
)
def test_hue_equals_torchvisions_for_every_colour(colour: tuple[int, int, int], shift: float):
    image = torch.tensor(colour).view(1, 3, 1, 1) / 255
    found = operations.adjust_hue(image, torch.tensor([shift]))
    torch.testing.assert_close(found, tvf.adjust_hue(image, shift), rtol=0, atol=5e-6)


def test_masked_changes_equal_torchvisions_and_leave_the_others_alone(pictures: Pictures):
    images = pictures(16)
    mask = torch.arange(16) % 3 > 0
    pairs = [
        (operations.flip, tvf.horizontal_flip),
        (operations.greyscale, lambda image: tvf.rgb_to_grayscale(image, num_output_channels=3)),
        (operations.solarise, lambda image: tvf.solarize(image, 0.5)),
    ]
    for ours, theirs in pairs:
        for chosen in (mask, torch.zeros(16, dtype=torch.bool), torch.ones(16, dtype=torch.bool)):
            expected = one_by_one(images, lambda image, on, theirs=theirs: theirs(image) if on else image, chosen)
            given_images = images.clone()
            torch.testing.assert_close(ours(given_images, chosen), expected, rtol=0, atol=1e-6)
            assert torch.equal(given_images, images)


def test_solarise_equals_pillows_on_every_grey_level():
    levels = np.arange(256, dtype=np.uint8)[None]
    expected = torch.from_numpy(np.asarray(ImageOps.solarize(Image.fromarray(levels))).copy())
    images = (torch.arange(256) / 255).expand(1, 3, 1, 256)
    found = operations.solarise(images, torch.tensor([True]))
    torch.testing.assert_close((found[0, 0] * 255).round().to(torch.uint8), expected)


@pytest.mark.parametrize(("height", "width"), [(40, 28), (16, 16), (5, 9), (1, 8)])
def test_blur_equals_torchvisions(pictures: Pictures, height: int, width: int):
    images = pictures(12, height, width)
    sigmas = torch.linspace(0.1, 2.0, 12)

    def torchvisions(image: torch.Tensor, sigma: float) -> torch.Tensor:
        taps = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in (width, height)]
        return tvf.gaussian_blur(image, taps, [sigma, sigma])

    torch.testing.assert_close(
        gaussian_blur(images, sigmas, torch.ones(12, dtype=torch.bool)),
        one_by_one(images, torchvisions, sigmas),
        rtol=0,
        atol=2e-6,
    )


@needs_imagenet
def test_blur_of_photographs_is_near_pillows():
    for picture, sigma in itertools.product(photographs(4), (0.5, 1.0, 2.0)):
        small = picture.resize((224, 224))
        pillows = tvf.pil_to_tensor(small.filter(ImageFilter.GaussianBlur(sigma))).float()
        image = tvf.pil_to_tensor(small)[None] / 255
        error = (gaussian_blur(image, torch.tensor([sigma]), torch.tensor([True]))[0] * 255 - pillows).abs()
        assert error.mean() < 1
        assert error[:, 8:-8, 8:-8].max() < 8  # Pillow repeats the border's pixels, torchvision mirrors there


def test_colour_jitter_equals_torchvisions_in_every_order(pictures: Pictures, naive_jitter: Callable[..., Tensor]):
    images = pictures(48)
    order = torch.tensor(list(itertools.permutations(range(4)))).repeat(2, 1)
    mask = torch.arange(48) % 5 > 0
    factors = [*(torch.rand(3, 48, generator=torch.Generator().manual_seed(1)) + 0.5), torch.linspace(-0.3, 0.3, 48)]
    for left_out in (None, 1, 3):
        present = [None if number == left_out else values for number, values in enumerate(factors)]
        rows = [[None if v is None else float(v[i]) for v in present] for i in range(48)]
        expected = torch.stack(
            [
                naive_jitter(image, row, places.tolist()) if on else image
                for image, row, places, on in zip(images, rows, order, mask, strict=True)
            ]
        )
        torch.testing.assert_close(colour_jitter(images, present, order, mask), expected, rtol=0, atol=2e-5)
