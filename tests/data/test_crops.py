import io
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.transforms as tvt
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from groco_cli.data.counter import uniforms
from groco_cli.data.crops import CROP_DRAWS, affine, crop_boxes, resized_crops

IMAGENET = Path(__file__).parents[3] / "shared/data/imagenet-sample/imagenet-sample-000000.tar"
RATIO = (3 / 4, 4 / 3)


def draw(n: int) -> np.ndarray:
    return uniforms(CROP_DRAWS, seed=0, epoch=0, view=0, samples=np.arange(n))


def boxes_of(
    n: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> np.ndarray:
    return crop_boxes(draw(n), np.full(n, height), np.full(n, width), scale=scale, ratio=ratio)


class FedTorch:
    """Stands in for the module `torch` inside `RandomResizedCrop.get_params`: gives out uniforms laid down before.

    In float64, where torch would draw and take logarithms in float32.
    """

    log, exp = staticmethod(torch.log), staticmethod(torch.exp)

    def __init__(self, row: np.ndarray) -> None:
        tries = iter(np.stack([row[:10], row[10:20]], axis=1).ravel())
        self._tries: Iterator[float] = tries
        self._places = iter(row[20:])

    def tensor(self, values: tuple[float, float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def empty(self, _: int) -> SimpleNamespace:
        u = next(self._tries)
        return SimpleNamespace(uniform_=lambda a, b: torch.as_tensor(a + (b - a) * u, dtype=torch.float64))

    def randint(self, low: int, high: int, size: tuple[int]) -> Tensor:
        return torch.tensor(low + math.floor(next(self._places) * (high - low)))


@settings(deadline=None, max_examples=60)
@given(
    sides=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    low=st.floats(0.01, 1),
    narrow=st.floats(0.3, 1),
    seed=st.integers(0, 10**6),
)
def test_equals_torchvisions_code_on_the_same_uniforms(sides: tuple[int, int], low: float, narrow: float, seed: int):
    height, width = sides
    draws = uniforms(CROP_DRAWS, seed=seed, epoch=0, view=0, samples=np.arange(8))
    scale, ratio = (low, 1.0), (narrow, 1 / narrow)
    found = crop_boxes(draws, np.full(8, height), np.full(8, width), scale=scale, ratio=ratio)
    image = torch.empty(3, 1, 1).expand(3, height, width)
    for row, box in zip(draws, found, strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torchvision.transforms.transforms.torch", FedTorch(row))
            expected = tvt.RandomResizedCrop.get_params(image, scale, ratio)
        assert tuple(box) == expected


@pytest.mark.parametrize(("height", "width"), [(32, 32), (300, 200)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int):
    n = 4000
    found = boxes_of(n, height, width, (0.14, 1.0))
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([tvt.RandomResizedCrop.get_params(image, [0.14, 1.0], list(RATIO)) for _ in range(n)])
    for ours, other in zip(found.T, theirs.T, strict=True):
        assert abs(ours.mean() - other.mean()) < 5 * (2 / n) ** 0.5 * max(other.std(), 1)
        values = np.arange(max(height, width) + 1)
        gap = np.searchsorted(np.sort(ours), values, "right") - np.searchsorted(np.sort(other), values, "right")
        assert np.abs(gap).max() / n < 2 * (2 / n) ** 0.5  # two-sample Kolmogorov-Smirnov


@given(
    heights=st.lists(st.integers(1, 500), min_size=1, max_size=20),
    seed=st.integers(0, 10**6),
    low=st.floats(0.01, 1),
)
def test_boxes_lie_inside_their_images(heights: list[int], seed: int, low: float):
    tall = np.array(heights)
    wide = tall[::-1].copy()
    draws = uniforms(CROP_DRAWS, seed=seed, epoch=0, view=0, samples=np.arange(len(tall)))
    top, left, height, width = crop_boxes(draws, tall, wide, scale=(low, 1.0), ratio=RATIO).T
    assert (np.stack([top, left]) >= 0).all()
    assert (np.stack([height, width]) > 0).all()
    assert (top + height <= tall).all()
    assert (left + width <= wide).all()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(400, 2, (198, 0, 3, 2)), (3, 500, (0, 248, 3, 4)), (1, 1, (0, 0, 1, 1))],
)
def test_extreme_images_get_the_central_box(height: int, width: int, expected: tuple[int, int, int, int]):
    assert (boxes_of(50, height, width, (0.9, 1.0)) == expected).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [((32, 32), 32), ((40, 56), 96), ((160, 120), 24), ((7, 9), 5)])
def test_resized_crops_equal_torchvisions(interpolation: str, side: tuple[int, int], size: int):
    torch.manual_seed(0)
    images = torch.randint(256, (24, 3, *side), dtype=torch.uint8)
    boxes = boxes_of(24, *side, (0.05, 1.0))
    boxes[0] = (0, 0, *side)
    boxes[1] = (side[0] - 1, side[1] - 1, 1, 1)
    floats = images.float() / 255
    expected = torch.stack(
        [
            tvf.resized_crop(image, *box, [size, size], tvf.InterpolationMode(interpolation), antialias=True)
            for image, box in zip(floats, boxes.tolist(), strict=True)
        ]
    ).clamp(0, 1)
    for given_images in (images, floats):
        found = resized_crops(given_images, boxes, size, interpolation)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(resized_crops(images, torch.from_numpy(boxes), size, interpolation), found)


@pytest.mark.skipif(not IMAGENET.exists(), reason=f"no {IMAGENET}")
@pytest.mark.parametrize(("interpolation", "filter_"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
def test_resized_crops_of_real_images_are_pillows_but_for_its_rounding(interpolation: str, filter_: Image.Resampling):
    with tarfile.open(IMAGENET) as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")][:8]
        pictures = [Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB") for name in names]
    for picture, box in zip(pictures, draw(8), strict=True):
        height, width = picture.height, picture.width
        (found_box,) = crop_boxes(box[None], np.array([height]), np.array([width]), scale=(0.14, 1.0), ratio=RATIO)
        top, left, tall, wide = found_box.tolist()
        expected = picture.crop((left, top, left + wide, top + tall)).resize((64, 64), filter_)
        found = resized_crops(tvf.pil_to_tensor(picture)[None], found_box[None], 64, interpolation)[0]
        error = (found * 255 - tvf.pil_to_tensor(expected)).abs()
        # Pillow rounds to 8 bits, and cuts what bicubic overshoots, after each of its two passes.
        assert error.mean() < 0.4
        assert error.max() < 4


def test_half_precision_images_are_cropped():
    images = torch.rand(4, 3, 16, 16)
    boxes = boxes_of(4, 16, 16, (0.2, 1.0))
    for dtype in (torch.bfloat16, torch.float16):
        found = resized_crops(images.to(dtype), boxes, 8, "bicubic")
        torch.testing.assert_close(found, resized_crops(images, boxes, 8, "bicubic"), rtol=0, atol=0.02)


def test_affine_equals_torchvisions():
    torch.manual_seed(0)
    images = torch.rand(16, 3, 20, 20)
    rotation, zoom = torch.rand(16) * 2 - 1, torch.rand(16) + 0.5
    shift = torch.randint(-5, 6, (16, 2)) / 10  # torchvision's shifts are whole pixels
    expected = torch.stack(
        [
            tvf.affine(
                image,
                angle=math.degrees(turn),
                translate=(move * 10).tolist(),
                scale=float(factor),
                shear=[0.0, 0.0],
                interpolation=tvf.InterpolationMode.BILINEAR,
            )
            for image, turn, factor, move in zip(images, rotation, zoom, shift, strict=True)
        ]
    )
    torch.testing.assert_close(affine(images, rotation, zoom, shift), expected, rtol=0, atol=1e-4)
    half = affine(images.bfloat16(), rotation, zoom, shift)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.02)


def test_affine_turns_clockwise_then_shifts_right_and_down():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(2, 1, 2, 2)
    turned = affine(image, torch.tensor([math.pi / 2, 0.0]), torch.ones(2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(turned[0, 0], torch.tensor([[3.0, 1.0], [4.0, 2.0]]))
    torch.testing.assert_close(turned[1, 0], torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
