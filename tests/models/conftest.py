import pytest

from groco_cli.models import Encoder, EncoderMetadata, create_encoder


@pytest.fixture
def tiny() -> Encoder:
    """A residual network of a third of a million weights, every one of them moved off its start."""
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=36))
    for number, tensor in enumerate(encoder.state_dict().values()):
        if tensor.is_floating_point():
            tensor.add_(0.01 * (1 + number % 7))
    return encoder
