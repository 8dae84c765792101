"""The usual pipeline for a view, image by image on Pillow pictures: torchvision's classes, as the released code has it.

What groco's own pipeline is measured against; see dataloader/transforms.py of github.com/ninatu/learning_by_sorting.
"""

import random
from collections.abc import Callable

from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import View


def official_pipeline(view: View, normalisation: Normalisation) -> Callable[[Image.Image], Tensor]:
    """The transform that gives such views.

    Args:
        view: How it is drawn; one without an affine part.
        normalisation: Applied last.
    """
    photometric = view.photometric
    jitter = transforms.ColorJitter(
        photometric.brightness, photometric.contrast, photometric.saturation, photometric.hue
    )
    pipeline: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                view.size,
                scale=view.crop_scale,
                ratio=view.crop_ratio,
                interpolation=transforms.InterpolationMode(view.interpolation),
            ),
            transforms.RandomHorizontalFlip(photometric.flip_probability),
            transforms.RandomApply([jitter], photometric.jitter_probability),
            transforms.RandomGrayscale(photometric.grey_probability),
            transforms.RandomApply([_PillowBlur(*photometric.blur_sigma)], photometric.blur_probability),
            transforms.RandomSolarize(128, photometric.solarise_probability),
            transforms.ToTensor(),
            transforms.Normalize(normalisation.mean, normalisation.std),
        ]
    )
    return pipeline


class _PillowBlur:
    def __init__(self, smallest: float, largest: float) -> None:
        self.range = smallest, largest

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.range)))
