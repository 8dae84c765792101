"""What an encoder is known by: a hash of its weights and structure, which is the same in every process that scores it.

Each process reads the checkpoint itself. A run that goes on replaces its latest one, so two of them may read two.
"""

import hashlib

import torch

from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.models import Encoder


def encoder_hash(encoder: Encoder) -> str:
    """A hash of an encoder's weights and structure."""
    # How many heads share an attention's width shows neither in timm's text of the module nor in its weights.
    digest = hashlib.sha256(f"{encoder.backbone} {encoder.metadata.attention_heads}".encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_same_in_all(encoder: Encoder) -> None:
    """Check that all processes have the same encoder, and would show it pictures alike.

    Raises:
        GrocoError: If they have not, in all of them.
    """
    if collectives.world_size() == 1:
        return
    first, *others = collectives.from_all((encoder_hash(encoder), encoder.metadata))
    if any(other != first for other in others):
        raise GrocoError(
            "the processes have different encoders: was the checkpoint replaced while they read it?",
            "type the same again, or name a checkpoint that stays",
        )
