"""Features of a whole source: every image once, each in the row of its number."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from groco_cli import console, devices
from groco_cli.data.loader import evaluation_batches
from groco_cli.data.pool import dead_workers_explained
from groco_cli.data.sources import Source, pick
from groco_cli.data.transforms import EvaluationTransform, Normalisation
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation.fingerprint import check_same_in_all
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
        GrocoError: If an image cannot be decoded, a feature is not finite, a worker died, or the processes have
            different encoders.
    """
    check_same_in_all(encoder)
    own = collectives.share_of(len(source))
    features = torch.full((len(own), encoder.feature_dim), torch.nan)
    batches = feature_batches(
        encoder,
        pick(source, torch.arange(own.start, own.stop)) if collectives.world_size() > 1 else source,
        evaluation_transform(encoder.metadata),
        device=device,
        workers=workers,
        batch_size=batch_size,
        on_bad_image=on_bad_image,
    )
    with collectives.failing_together():
        for numbers, seen in batches if own else ():
            features[numbers] = seen
            advance(len(seen) * collectives.world_size())
    return collectives.all_rows(features, len(source), device)


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
        batch_size: Images a forward pass; halved, with a note, where they do not fit into memory.
        on_bad_image: "error", or "skip" to leave out images that cannot be decoded.
        precision: Of the forward pass: "fp32", "bf16" or "fp16".

    Yields:
        The images' numbers, int64 [b], in the order of the source, and their features, float32 [b, feature_dim], on
        the CPU.

    Raises:
        GrocoError: If an image cannot be decoded, a feature is not finite, a worker died, or not even a single image
            fits into memory.
    """
    training = encoder.training
    encoder.to(device).eval()
    encode = _Encode(encoder, batch_size, device, precision)
    batches = evaluation_batches(
        source, transform, batch_size=batch_size, device=device, workers=workers, on_bad_image=on_bad_image
    )
    try:
        with dead_workers_explained():
            for numbers, images in batches:
                features = encode(images)
                _check_finite(features, numbers, source)
                yield numbers, features
    finally:
        encoder.train(training)


class _Encode:
    """Encodes images, as many at once as memory holds: halves of those that do not fit, and so for all that follow."""

    def __init__(self, encoder: Encoder, at_once: int, device: torch.device, precision: str) -> None:
        self._encoder, self._at_once, self._device, self._precision = encoder, at_once, device, precision

    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, feature_dim] of images [B, 3, crop, crop], on the CPU in float32."""
        while (features := self._tried(images)) is None:
            self._at_once = min(self._at_once, len(images)) // 2
            torch.cuda.empty_cache()
            console.note(f"{self._device}: no memory for so many images at once; going on with {self._at_once}")
        return features

    @torch.inference_mode()
    def _tried(self, images: Tensor) -> Tensor | None:
        """None where they do not fit; what was computed on the way is free again by then."""
        try:
            with devices.whole_float32(), devices.autocast(self._device, self._precision):
                return torch.cat([self._encoder(part).float().cpu() for part in torch.split(images, self._at_once)])
        except torch.OutOfMemoryError as error:
            if min(self._at_once, len(images)) == 1:
                raise GrocoError(
                    f"{devices.describe(self._device)} has no memory for a single image",
                    "stop what else uses it, or type --device cpu",
                ) from error
            return None


def _check_finite(features: Tensor, numbers: Tensor, source: Source) -> None:
    diverged = (~features.isfinite().all(dim=1)).nonzero()
    if len(diverged):
        name = source.name_of(int(numbers[diverged[0]]))
        raise GrocoError(f"the encoder's feature of {name} is not finite", "the checkpoint is damaged or diverged")
