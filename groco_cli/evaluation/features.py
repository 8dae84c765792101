"""Features of a whole source: every image once, each in the row of its number."""

from collections.abc import Callable

import torch
from torch import Tensor

from groco_cli.data.loader import dead_workers_explained, evaluation_batches
from groco_cli.data.sources import Source
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.errors import GrocoError
from groco_cli.models import Encoder, EncoderMetadata


def evaluation_transform(metadata: EncoderMetadata) -> EvaluationTransform:
    """How the encoder of a checkpoint is shown pictures: its checkpoint says it all."""
    return EvaluationTransform(
        resize=metadata.resize,
        crop=metadata.image_size,
        normalisation=Normalisation(mean=metadata.mean, std=metadata.std),
    )


def extract_features(
    encoder: Encoder,
    source: Source,
    *,
    device: torch.device,
    workers: int,
    batch_size: int = 256,
    on_bad_image: str = "error",
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Run an encoder over every image of a source, in evaluation mode and float32.

    Args:
        encoder: The encoder; moved to the device, its training mode put back afterwards.
        source: The images.
        device: Where to compute.
        workers: Processes that decode.
        batch_size: Images a forward pass.
        on_bad_image: "error", or "skip" to leave the rows of images that cannot be decoded NaN.
        advance: Called with the number of images done, batch by batch.

    Returns:
        float32 [n, feature_dim] on the CPU, in the order of the source.

    Raises:
        GrocoError: If an image cannot be decoded, a feature is not finite, or a worker died.
    """
    features = torch.full((len(source), encoder.feature_dim), torch.nan)
    shown = torch.zeros(len(source), dtype=torch.bool)
    training = encoder.training
    encoder.to(device).eval()
    transform = evaluation_transform(encoder.metadata)
    batches = evaluation_batches(
        source, transform, batch_size=batch_size, device=device, workers=workers, on_bad_image=on_bad_image
    )
    with dead_workers_explained(), torch.inference_mode():
        for numbers, images in batches:
            features[numbers] = encoder(images).float().cpu()
            shown[numbers] = True
            advance(len(images))
    encoder.train(training)
    diverged = shown & ~features.isfinite().all(dim=1)
    if diverged.any():
        name = source.name_of(int(diverged.nonzero()[0]))
        raise GrocoError(f"the encoder's feature of {name} is not finite", "the checkpoint is damaged or diverged")
    return features
