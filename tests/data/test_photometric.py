import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from groco_cli.data.counter import uniforms
from groco_cli.data.operations import solarise
from groco_cli.data.photometric import PHOTOMETRIC_DRAWS, Photometric, draw_changes
from groco_cli.errors import UsageError

Function = Callable[..., Tensor]
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


def draw(n: int) -> np.ndarray:
    return uniforms(PHOTOMETRIC_DRAWS, seed=0, epoch=0, view=0, samples=np.arange(n))


@pytest.fixture(scope="module")
def naive_augment(naive_jitter: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One image's chain of torchvision calls, its parameters decoded from the documented order of the draws."""

    def augmented(image: Tensor, dose: Photometric, draws: list[float]) -> Tensor:
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

    return augmented


@pytest.mark.parametrize(
    "dose",
    [
        DINO,
        replace(DINO, brightness=1.5, contrast=0.0, hue=0.5, jitter_probability=1.0, solarise_probability=0.0),
        replace(DINO, hue=0.0, grey_probability=1.0, blur_probability=1.0, blur_sigma=(0.5, 1.2), flip_probability=0),
    ],
)
def test_changes_equal_a_chain_of_torchvision_calls(pictures: Function, dose: Photometric, naive_augment: Function):
    images, draws = pictures(120), draw(120)
    expected = torch.stack([naive_augment(i, dose, row) for i, row in zip(images, draws.tolist(), strict=True)])
    before = images.clone()
    found = draw_changes(dose, draws).apply(images)
    assert torch.equal(images, before)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_an_images_result_does_not_depend_on_its_batch(pictures: Function):
    images, draws = pictures(40), draw(40)
    together = draw_changes(DINO, draws).apply(images)
    order = np.random.default_rng(0).permutation(40)
    shuffled = draw_changes(DINO, draws[order]).apply(images[torch.from_numpy(order)])
    torch.testing.assert_close(shuffled, together[torch.from_numpy(order)], rtol=0, atol=2e-6)
    alone = torch.cat([draw_changes(DINO, draws[i : i + 1]).apply(images[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(alone, together, rtol=0, atol=2e-6)


def test_large_images_are_changed_as_small_batches_are(pictures: Function, naive_augment: Function):
    images, draws = pictures(20, 224, 160), draw(20)
    dose = replace(DINO, blur_probability=1.0)
    expected = torch.stack([naive_augment(i, dose, row) for i, row in zip(images, draws.tolist(), strict=True)])
    torch.testing.assert_close(draw_changes(dose, draws).apply(images), expected, rtol=0, atol=2e-5)
    striped = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(draw_changes(dose, draws).apply(striped), expected, rtol=0, atol=2e-5)


def test_nothing_changes_where_nothing_is_asked_for(pictures: Function):
    images = pictures(20)
    assert torch.equal(draw_changes(Photometric(flip_probability=0.0), draw(20)).apply(images), images)
    assert draw_changes(DINO, draw(0)).apply(images[:0]).shape == (0, 3, 18, 22)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarise"])
def test_each_change_is_as_frequent_as_asked(name: str):
    n, probability = 4000, 0.3
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)).repeat(n // 8, 1, 1, 1)
    dose = replace(
        Photometric(brightness=0.4, flip_probability=0.0, blur_sigma=(1.0, 2.0)), **{f"{name}_probability": probability}
    )
    changed = (draw_changes(dose, draw(n)).apply(images) != images).flatten(1).any(1).float().mean()
    assert abs(changed - probability) < 5 * (probability * (1 - probability) / n) ** 0.5


def test_factors_are_uniform_between_their_bounds():
    n = 4000
    images = torch.full((n, 3, 1, 1), 0.4)
    dose = Photometric(brightness=0.4, jitter_probability=1.0)
    factors = draw_changes(dose, draw(n)).apply(images)[:, 0, 0, 0] / 0.4
    assert 0.6 <= factors.min() < 0.602
    assert 1.398 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 5 * 0.8 / (12 * n) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single(pictures: Function, dtype: torch.dtype):
    images, draws = pictures(64), draw(64)
    dose = replace(DINO, solarise_probability=0.0, blur_probability=1.0)
    images = images.to(dtype).float()
    found = draw_changes(dose, draws).apply(images.to(dtype))
    assert found.dtype == dtype
    assert (found.float() - draw_changes(dose, draws).apply(images)).abs().mean() < 4 * torch.finfo(dtype).eps
    solarised = solarise(images.to(dtype), torch.ones(64, dtype=torch.bool))
    assert solarised.dtype == dtype


@pytest.mark.parametrize(
    ("name", "value"), [("hue", 0.6), ("brightness", -1.0), ("blur_probability", 1.5), ("blur_sigma", (0.0, 1.0))]
)
def test_settings_out_of_range_are_named(name: str, value: object):
    with pytest.raises(UsageError, match=name.split("_")[0]):
        Photometric(**{name: value})
