"""The published augmentations, as numbers."""

import pytest

from groco_cli.data.photometric import Photometric
from groco_cli.data.views import AUGMENTATIONS


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(("views", "local_views"), [(2, 0), (3, 0), (4, 2)])
def test_global_views_come_first_and_have_their_size(name, views, local_views):
    drawn = AUGMENTATIONS[name](views, local_views, 224, 96)
    assert [view.size for view in drawn] == [224] * views + [96] * local_views


def test_dino_views_are_the_released_ones():
    first, second, third, fourth, local = AUGMENTATIONS["dino"](4, 1, 224, 96)
    assert (first, second) == (third, fourth)
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "jitter_probability": 0.8}
    common = {**jitter, "grey_probability": 0.2, "flip_probability": 0.5, "blur_sigma": (0.1, 2.0)}
    assert first.photometric == Photometric(**common, blur_probability=1.0)
    assert second.photometric == Photometric(**common, blur_probability=0.1, solarise_probability=0.2)
    assert local.photometric == Photometric(**common, blur_probability=0.5)
    assert first.crop_scale == second.crop_scale == (0.14, 1.0)
    assert local.crop_scale == (0.05, 0.14)
    assert {view.interpolation for view in (first, second, local)} == {"bicubic"}


def test_moco_v3_views_are_dino_s_with_larger_crops():
    mine, dino = (AUGMENTATIONS[name](2, 1, 224, 96) for name in ("mocov3", "dino"))
    assert [view.photometric for view in mine] == [view.photometric for view in dino]
    assert [(view.crop_scale, view.interpolation) for view in mine[:2]] == [((0.08, 1.0), "bilinear")] * 2
    assert mine[2] == dino[2]


def test_simclr_views_are_the_released_ones():
    view, same = AUGMENTATIONS["simclr"](2, 0, 224, 96)
    assert view == same
    assert view.crop_scale == (0.08, 1.0)
    assert view.photometric == Photometric(
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1, 2.0),
        flip_probability=0.5,
    )


def test_small_views_crop_a_fifth_at_least_and_never_blur():
    view, _ = AUGMENTATIONS["small"](2, 0, 32, 16)
    assert view.crop_scale == (0.2, 1.0)
    assert view.photometric.blur_probability == view.photometric.solarise_probability == 0


def test_digits_are_never_mirrored():
    view, _ = AUGMENTATIONS["digits"](2, 0, 32, 16)
    assert view.photometric.flip_probability == 0
    assert view.affine is not None


def test_a_view_says_what_is_done_to_it():
    percent = "\N{NO-BREAK SPACE}%"
    odd, even, local = (str(view).replace(percent, "%") for view in AUGMENTATIONS["dino"](2, 1, 224, 96))
    jitter = "flip 50%; jitter 80% (brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1); grey 20%"
    assert odd == f"crop of 14–100% of the area, bicubic; {jitter}; blur 100% (σ 0.1–2 px)"
    assert even == f"crop of 14–100% of the area, bicubic; {jitter}; blur 10% (σ 0.1–2 px); solarise 20%"
    assert local == f"crop of 5–14% of the area, bicubic; {jitter}; blur 50% (σ 0.1–2 px)"
    turned = str(AUGMENTATIONS["digits"](1, 0, 32, 16)[0])
    assert turned.startswith("the whole picture, bilinear; turn ±0.35 rad, zoom 0.7–1.4, shift ±0.3; jitter 80")
    assert "flip" not in turned
