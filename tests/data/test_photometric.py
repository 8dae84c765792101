import io
import itertools
import math
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from groco_cli.data import photometric
from groco_cli.data.counter import uniforms
from groco_cli.data.photometric import PHOTOMETRIC_DRAWS, Photometric, augment, colour_jitter, gaussian_blur
from groco_cli.errors import UsageError

IMAGENET = Path(__file__).parents[3] / "shared/data/imagenet-sample/imagenet-sample-000000.tar"
needs_imagenet = pytest.mark.skipif(not IMAGENET.exists(), reason=f"no {IMAGENET}")
DINO = Photometric(
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
    solarise_probability=0.2,
)


def pictures(n: int, height: int = 18, width: int = 22) -> Tensor:
    """Noise on an 8-bit scale, with flat, grey, dark, near-grey and few-coloured images among it."""
    images = torch.randint(256, (n, 3, height, width), generator=torch.Generator().manual_seed(0)) / 255
    images[0], images[1], images[2] = 0.0, 1.0, 0.5
    images[3] = images[3, :1]
    images[4] = images[4] / 64 + 0.5
    images[5] = (images[5] * 2).round() / 2
    return images


def draw(n: int) -> np.ndarray:
    return uniforms(PHOTOMETRIC_DRAWS, seed=0, epoch=0, view=0, samples=np.arange(n))


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
def test_adjustments_equal_torchvisions(name: str, low: float, high: float):
    images = pictures(64)
    factors = torch.linspace(low, high, 64)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    found = getattr(photometric, f"adjust_{name}")(images, factors)
    expected = one_by_one(images, getattr(tvf, f"adjust_{name}"), factors)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@settings(deadline=None)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    shift=st.floats(-0.5, 0.5, width=32) | st.sampled_from([i / 6 for i in range(-3, 4)]),
)
def test_hue_equals_torchvisions_for_every_colour(colour: tuple[int, int, int], shift: float):
    image = torch.tensor(colour).view(1, 3, 1, 1) / 255
    found = photometric.adjust_hue(image, torch.tensor([shift]))
    torch.testing.assert_close(found, tvf.adjust_hue(image, shift), rtol=0, atol=5e-6)


def test_masked_changes_equal_torchvisions_and_leave_the_others_alone():
    images = pictures(16)
    mask = torch.arange(16) % 3 > 0
    pairs = [
        (photometric.flip, tvf.horizontal_flip),
        (photometric.greyscale, lambda image: tvf.rgb_to_grayscale(image, num_output_channels=3)),
        (photometric.solarise, lambda image: tvf.solarize(image, 0.5)),
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
    found = photometric.solarise(images, torch.tensor([True]))
    torch.testing.assert_close((found[0, 0] * 255).round().to(torch.uint8), expected)


@pytest.mark.parametrize(("height", "width"), [(40, 28), (16, 16), (5, 9), (1, 8)])
def test_blur_equals_torchvisions(height: int, width: int):
    images = pictures(12, height, width)
    sigmas = torch.linspace(0.1, 2.0, 12)

    def torchvisions(image: torch.Tensor, sigma: float) -> torch.Tensor:
        taps = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in (width, height)]
        return tvf.gaussian_blur(image, taps, [sigma, sigma])

    torch.testing.assert_close(
        gaussian_blur(images, sigmas), one_by_one(images, torchvisions, sigmas), rtol=0, atol=2e-6
    )


@needs_imagenet
def test_blur_of_photographs_is_near_pillows():
    for picture, sigma in itertools.product(photographs(4), (0.5, 1.0, 2.0)):
        small = picture.resize((224, 224))
        pillows = tvf.pil_to_tensor(small.filter(ImageFilter.GaussianBlur(sigma))).float()
        image = tvf.pil_to_tensor(small)[None] / 255
        error = (gaussian_blur(image, torch.tensor([sigma]))[0] * 255 - pillows).abs()
        assert error.mean() < 1
        assert error[:, 8:-8, 8:-8].max() < 8  # Pillow repeats the border's pixels, torchvision mirrors there


def test_normalise_equals_torchvisions():
    images, mean, std = pictures(8), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    torch.testing.assert_close(photometric.normalise(images, mean, std), tvf.normalize(images, mean, std))


def naive_jitter(image: Tensor, factors: list[float | None], order: list[int]) -> Tensor:
    adjust = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]
    for number in order:
        factor = factors[number]
        if factor is not None:
            image = adjust[number](image, factor)
    return image


def test_colour_jitter_equals_torchvisions_in_every_order():
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


def naive_augment(image: Tensor, dose: Photometric, draws: list[float]) -> Tensor:
    """One image's chain of torchvision calls, its parameters decoded from the documented order of the draws."""
    flip, jitter, brightness, contrast, saturation, hue, order, grey, blur, sigma, solarise = draws
    if flip < dose.flip_probability:
        image = tvf.horizontal_flip(image)
    if jitter < dose.jitter_probability:
        factors: list[float | None] = []
        for u, s in [(brightness, dose.brightness), (contrast, dose.contrast), (saturation, dose.saturation)]:
            low, high = max(0, 1 - s), 1 + s
            factors.append(low + u * (high - low) if s else None)
        factors.append(dose.hue * (2 * hue - 1) if dose.hue else None)
        image = naive_jitter(image, factors, list(itertools.permutations(range(4)))[int(24 * order)])
    if grey < dose.grey_probability:
        image = tvf.rgb_to_grayscale(image, num_output_channels=3)
    if blur < dose.blur_probability:
        low, high = dose.blur_sigma
        sigma = low + sigma * (high - low)
        width = 2 * math.ceil(3 * sigma) + 1
        image = tvf.gaussian_blur(image, [width, width], [sigma, sigma])
    if solarise < dose.solarise_probability:
        image = tvf.solarize(image, 0.5)
    return image


@pytest.mark.parametrize(
    "dose",
    [
        DINO,
        replace(DINO, brightness=1.5, contrast=0.0, hue=0.5, jitter_probability=1.0, solarise_probability=0.0),
        replace(DINO, hue=0.0, grey_probability=1.0, blur_probability=1.0, blur_sigma=(0.5, 1.2), flip_probability=0),
    ],
)
def test_augment_equals_a_chain_of_torchvision_calls(dose: Photometric):
    images, draws = pictures(120), draw(120)
    expected = torch.stack([naive_augment(i, dose, row) for i, row in zip(images, draws.tolist(), strict=True)])
    before = images.clone()
    found = augment(images, dose, draws)
    assert torch.equal(images, before)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_an_images_result_does_not_depend_on_its_batch():
    images, draws = pictures(40), draw(40)
    together = augment(images, DINO, draws)
    order = np.random.default_rng(0).permutation(40)
    shuffled = augment(images[torch.from_numpy(order)], DINO, draws[order])
    torch.testing.assert_close(shuffled, together[torch.from_numpy(order)], rtol=0, atol=2e-6)
    alone = torch.cat([augment(images[i : i + 1], DINO, draws[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(alone, together, rtol=0, atol=2e-6)


def test_large_images_are_changed_as_small_batches_are():
    images, draws = pictures(20, 224, 160), draw(20)
    dose = replace(DINO, blur_probability=1.0)
    expected = torch.stack([naive_augment(i, dose, row) for i, row in zip(images, draws.tolist(), strict=True)])
    torch.testing.assert_close(augment(images, dose, draws), expected, rtol=0, atol=2e-5)
    striped = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(augment(striped, dose, draws), expected, rtol=0, atol=2e-5)


def test_nothing_changes_where_nothing_is_asked_for():
    images = pictures(20)
    assert torch.equal(augment(images, Photometric(flip_probability=0.0), draw(20)), images)
    assert augment(images[:0], DINO, draw(0)).shape == (0, 3, 18, 22)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarise"])
def test_each_change_is_as_frequent_as_asked(name: str):
    n, probability = 4000, 0.3
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)).repeat(n // 8, 1, 1, 1)
    dose = replace(
        Photometric(brightness=0.4, flip_probability=0.0, blur_sigma=(1.0, 2.0)), **{f"{name}_probability": probability}
    )
    changed = (augment(images, dose, draw(n)) != images).flatten(1).any(1).float().mean()
    assert abs(changed - probability) < 5 * (probability * (1 - probability) / n) ** 0.5


def test_factors_are_uniform_between_their_bounds():
    n = 4000
    images = torch.full((n, 3, 1, 1), 0.4)
    dose = Photometric(brightness=0.4, jitter_probability=1.0)
    factors = augment(images, dose, draw(n))[:, 0, 0, 0] / 0.4
    assert 0.6 <= factors.min() < 0.602
    assert 1.398 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 5 * 0.8 / (12 * n) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single(dtype: torch.dtype):
    images, draws = pictures(64), draw(64)
    dose = replace(DINO, solarise_probability=0.0, blur_probability=1.0)
    images = images.to(dtype).float()
    found = augment(images.to(dtype), dose, draws)
    assert found.dtype == dtype
    assert (found.float() - augment(images, dose, draws)).abs().mean() < 4 * torch.finfo(dtype).eps
    solarised = photometric.solarise(images.to(dtype), torch.ones(64, dtype=torch.bool))
    assert solarised.dtype == dtype


@pytest.mark.parametrize(
    ("name", "value"), [("hue", 0.6), ("brightness", -1.0), ("blur_probability", 1.5), ("blur_sigma", (0.0, 1.0))]
)
def test_settings_out_of_range_are_named(name: str, value: object):
    with pytest.raises(UsageError, match=name.split("_")[0]):
        Photometric(**{name: value})
