"""Features of pictures of any size, as a retrieval protocol sees them (`groco_cli.evaluation.retrieval_protocol`)."""

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from groco_cli import devices
from groco_cli.data.decoding import BadImageError, decode
from groco_cli.data.pool import dead_workers_explained, leave_signals_to_the_main_process
from groco_cli.data.transforms import Normalisation
from groco_cli.errors import GrocoError
from groco_cli.evaluation.ground_truth import Box
from groco_cli.evaluation.retrieval_protocol import RetrievalProtocol
from groco_cli.models import Encoder

BATCH = 64  # pictures that are read together


def retrieval_features(
    encoder: Encoder,
    paths: Sequence[Path],
    boxes: Sequence[Box | None] | None = None,
    *,
    protocol: RetrievalProtocol,
    device: torch.device,
    workers: int,
    batch_size: int = BATCH,
) -> Iterator[Tensor]:
    """Run an encoder over pictures, in evaluation mode and float32; those of equal size go through it together.

    Args:
        encoder: Takes pictures of any size; moved to the device, its training mode put back afterwards.
        paths: The pictures' files.
        boxes: What to cut out of each; None for nothing.
        protocol: Image size and scales.
        device: Where to compute.
        workers: Processes that decode.
        batch_size: Pictures read together.

    Yields:
        Unit features, float32 [≤ batch_size, D] on the CPU, in the order of the paths.

    Raises:
        GrocoError: If a picture cannot be decoded, its box lies outside it, it is too narrow, the encoder cannot look
            at its size, a feature is not finite, or a worker died.
    """
    normalisation = Normalisation(mean=encoder.metadata.mean, std=encoder.metadata.std)
    loader = DataLoader(
        _Thumbnails(paths, boxes, protocol.image_size),
        batch_size=batch_size,
        collate_fn=_by_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # as in `pool.worker_loader`
    )
    training = encoder.training
    encoder.to(device).eval()
    done = 0
    try:
        with dead_workers_explained():
            for groups in loader:
                if isinstance(groups, tuple):
                    raise GrocoError(*groups)
                features = torch.empty(sum(len(places) for places, _ in groups), encoder.feature_dim)
                for places, pixels in groups:
                    _check_large_enough(pixels, protocol.scales, encoder, paths[done + places[0]])
                    images = normalisation(pixels.to(device, non_blocking=True).float().div_(255))
                    features[places] = _encode(encoder, images, protocol.scales)
                _check_finite(features, paths[done : done + len(features)])
                done += len(features)
                yield features
    finally:
        encoder.train(training)


def shown(encoder: Encoder, protocol: RetrievalProtocol, boxes: Sequence[Box | None] | None) -> dict[str, Any]:
    """All that these features depend on beside the weights and the files (`feature_cache.features_once`)."""
    about = encoder.metadata
    return {
        "thumbnail": protocol.image_size,
        "scales": protocol.scales,
        "boxes": boxes,
        "mean": about.mean,
        "std": about.std,
    }


def thumbnail(image: Tensor, size: int, box: Box | None = None) -> Tensor:
    """Cut out a box, then shrink until the picture fits a square; one that fits already is left as it is.

    Args:
        image: uint8 [3, H, W].
        size: Side of the square, pixels.
        box: Left, top, right, bottom, rounded to whole pixels; what lies outside the picture is black.

    Returns:
        uint8 [3, h, w], h and w at most `size`.

    Raises:
        ValueError: If nothing of the picture lies in the box, or the box is larger than a picture may be.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if box is not None:
        left, top, right, bottom = (round(side) for side in box)
        if min(right, picture.width) <= max(left, 0) or min(bottom, picture.height) <= max(top, 0):
            raise ValueError(f"bbx {list(box)} holds nothing of its {picture.width}×{picture.height} pixels")
        if (right - left) * (bottom - top) > (Image.MAX_IMAGE_PIXELS or math.inf):  # where Pillow's `crop` gives up
            raise ValueError(f"bbx {list(box)} is larger than any picture may be")
        picture = picture.crop((left, top, right, bottom))
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@torch.inference_mode()
def _encode(encoder: Encoder, images: Tensor, scales: Sequence[float]) -> Tensor:
    """Unit features of normalised images [B, 3, H, W], averaged over the scales."""
    height, width = images.shape[-2:]
    try:
        with devices.whole_float32():
            seen = [encoder(_whole_patches(_resized(images, scale), encoder)).float() for scale in scales]
    except torch.OutOfMemoryError as error:
        raise GrocoError(
            f"{images.device} has no memory for {width}×{height} pictures", "lower --image-size"
        ) from error
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise GrocoError(
            f"{encoder.metadata.arch} cannot look at a picture of {width}×{height} pixels ({reason})",
            "retrieval shows pictures in their own aspect: take an encoder that has no fixed size, such as a ResNet",
        ) from error
    return F.normalize(torch.stack(seen).mean(dim=0), dim=1).cpu()


def _resized(images: Tensor, scale: float) -> Tensor:
    return images if scale == 1 else F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def _whole_patches(images: Tensor, encoder: Encoder) -> Tensor:
    """Without the rest that no whole patch of a transformer covers: DINO's passes over it, timm's refuses it."""
    tall, wide = _patch(encoder)
    height, width = images.shape[-2:]
    return images[..., : height - height % tall, : width - width % wide]


def _patch(encoder: Encoder) -> tuple[int, int]:
    """Height and width of a transformer's patch; a pixel for any other."""
    embed = getattr(encoder.backbone, "patch_embed", None)
    tall, wide = embed.patch_size if isinstance(embed, PatchEmbed) else (1, 1)
    return tall, wide


def _check_large_enough(images: Tensor, scales: Sequence[float], encoder: Encoder, path: Path) -> None:
    """Where nothing is left of a picture at the smallest scale, DINO's script breaks off too."""
    (tall, wide), (height, width), least = _patch(encoder), images.shape[-2:], min(scales)
    if int(height * least) < tall or int(width * least) < wide:
        raise GrocoError(
            f"{path} is too narrow: at {width}×{height} pixels and scale {least:.4g}, less is left of it than the "
            f"{wide}×{tall} pixels that {encoder.metadata.arch} needs",
            "take it out, or have it shown larger: --image-size, --scales",
        )


def _check_finite(features: Tensor, paths: Sequence[Path]) -> None:
    bad = (~features.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise GrocoError(
            f"the encoder's feature of {paths[int(bad[0])]} is not finite", "the checkpoint is damaged or diverged"
        )


_Trouble = tuple[str, str]  # message and hint: between processes an error would lose its type


class _Thumbnails(Dataset[Tensor | _Trouble]):
    """What a worker does: decode, cut out the box, shrink."""

    def __init__(self, paths: Sequence[Path], boxes: Sequence[Box | None] | None, size: int) -> None:
        self.paths, self.boxes, self.size = paths, boxes, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor | _Trouble:
        path = self.paths[number]
        try:
            return thumbnail(decode(path), self.size, self.boxes[number] if self.boxes else None)
        except BadImageError as error:
            return str(error), f"replace the file; 'groco data {shlex.quote(str(path.parent))}' names all bad ones"
        except ValueError as error:
            return f"query {path}: {error}", "correct the ground truth: left, top, right, bottom in pixels"


def _by_size(pictures: list[Tensor | _Trouble]) -> list[tuple[list[int], Tensor]] | _Trouble:
    """Places in the batch and pixels [b, 3, H, W], for each size that occurs in it; or the first trouble."""
    sizes: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for place, picture in enumerate(pictures):
        if isinstance(picture, tuple):
            return picture
        sizes.setdefault(picture.shape, []).append((place, picture))
    return [([place for place, _ in same], torch.stack([picture for _, picture in same])) for same in sizes.values()]
