"""Features of a whole source: every image once, each in the row of its number."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from groco_cli import devices
from groco_cli.data.loader import evaluation_batches
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sources import Source, pick
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.errors import GrocoError
from groco_cli.evaluation import processes
from groco_cli.models import Encoder, EncoderMetadata


def evaluation_transform(metadata: EncoderMetadata, interpolation: str = "bicubic") -> EvaluationTransform:
    """How the encoder of a checkpoint is shown pictures: its checkpoint says it all but the protocol's resize."""
    return EvaluationTransform(
        resize=metadata.resize,
        crop=metadata.image_size,
        normalisation=Normalisation(mean=metadata.mean, std=metadata.std),
        interpolation=interpolation,
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

    Under torch.distributed each process takes its part of the images, and all are given all features.

    Args:
        encoder: The encoder; moved to the device, its training mode put back afterwards.
        source: The images.
        device: Where to compute.
        workers: Processes that decode.
        batch_size: Images a forward pass.
        on_bad_image: "error", or "skip" to leave the rows of images that cannot be decoded NaN.
        advance: Called with the number of images done by about all processes, batch by batch.

    Returns:
        float32 [n, feature_dim] on the CPU, in the order of the source.

    Raises:
        GrocoError: If an image cannot be decoded, a feature is not finite, or a worker died.
    """
    own = processes.share_of(len(source))
    features = torch.full((len(own), encoder.feature_dim), torch.nan)
    batches = feature_batches(
        encoder,
        pick(source, torch.arange(own.start, own.stop)) if processes.count() > 1 else source,
        evaluation_transform(encoder.metadata),
        device=device,
        workers=workers,
        batch_size=batch_size,
        on_bad_image=on_bad_image,
    )
    with processes.failing_together():
        for numbers, seen in batches if own else ():
            features[numbers] = seen
            advance(len(seen) * processes.count())
    return processes.gathered(features, len(source), device)


def feature_batches(
    encoder: Encoder,
    source: Source,
    transform: EvaluationTransform,
    *,
    device: torch.device,
    workers: int,
    batch_size: int = 256,
    on_bad_image: str = "error",
    precision: str = "fp32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run an encoder over every image of a source, in evaluation mode, batch by batch.

    Args:
        encoder: The encoder; moved to the device, its training mode put back afterwards.
        source: The images.
        transform: How they are shown.
        device: Where to compute.
        workers: Processes that decode.
        batch_size: Images a forward pass.
        on_bad_image: "error", or "skip" to leave out images that cannot be decoded.
        precision: Of the forward pass: "fp32", "bf16" or "fp16".

    Yields:
        The images' numbers, int64 [b], in the order of the source, and their features, float32 [b, feature_dim], on
        the CPU.

    Raises:
        GrocoError: If an image cannot be decoded, a feature is not finite, or a worker died.
    """
    training = encoder.training
    encoder.to(device).eval()
    batches = evaluation_batches(
        source, transform, batch_size=batch_size, device=device, workers=workers, on_bad_image=on_bad_image
    )
    try:
        with dead_workers_explained():
            for numbers, images in batches:
                with torch.inference_mode(), devices.whole_float32(), devices.autocast(device, precision):
                    features = encoder(images).float().cpu()
                _check_finite(features, numbers, source)
                yield numbers, features
    finally:
        encoder.train(training)


def _check_finite(features: Tensor, numbers: Tensor, source: Source) -> None:
    diverged = (~features.isfinite().all(dim=1)).nonzero()
    if len(diverged):
        name = source.name_of(int(numbers[diverged[0]]))
        raise GrocoError(f"the encoder's feature of {name} is not finite", "the checkpoint is damaged or diverged")
