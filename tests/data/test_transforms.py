from collections.abc import Callable

import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from groco_cli.data.transforms import Normalisation


def test_normalise_equals_torchvisions(pictures: Callable[..., Tensor]):
    images, mean, std = pictures(8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    torch.testing.assert_close(Normalisation(mean=mean, std=std)(images), tvf.normalize(images, mean, std))

    out = torch.empty_like(images)
    assert Normalisation(mean=mean, std=std)(images, out=out) is out
    torch.testing.assert_close(out, tvf.normalize(images, mean, std))
