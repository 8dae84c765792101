from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from groco_cli.models import Encoder, EncoderMetadata, create_encoder


@pytest.fixture
def tiny() -> Encoder:
    """A residual network of a third of a million weights, every one of them moved off its start."""
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=36))
    for number, tensor in enumerate(encoder.state_dict().values()):
        if tensor.is_floating_point():
            tensor.add_(0.01 * (1 + number % 7))
    return encoder


@pytest.fixture
def seeded() -> Callable[..., nn.Module]:
    """Draws every weight and statistic of a model anew, and puts it in evaluation mode: `seeded(model, seed=1)`."""

    def draw(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                spread = 1 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
                tensor.copy_(spread * torch.randn(tensor.shape, generator=generator) + (tensor.ndim == 1))
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
        return model.eval()

    return draw


@pytest.fixture
def resnet(seeded: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """torchvision's own ResNet, classifier removed: the reference for features. `resnet(18, seed=1)`."""

    def make(depth: int = 18, seed: int = 0) -> nn.Module:
        model = torchvision.models.get_model(f"resnet{depth}", weights=None)
        model.fc = nn.Identity()
        return seeded(model, seed)

    return make


@pytest.fixture
def same_features() -> Callable[..., None]:
    """Asserts that two encoders answer alike, and not the same to every picture: `same_features(a, b, size=64)`."""

    def check(found: nn.Module, reference: nn.Module, size: int = 64) -> None:
        images: Tensor = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = reference(images)
            assert expected.std(dim=0).mean() > 1e-4
            slack = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(found(images), expected, rtol=1e-4, atol=slack)

    return check
