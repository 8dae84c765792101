"""Encoders, projection heads, and the checkpoints they come from."""

from groco_cli.models.conversion import load_encoder
from groco_cli.models.encoder import Encoder, EncoderMetadata, create_encoder
from groco_cli.models.heads import Projector

__all__ = ["Encoder", "EncoderMetadata", "Projector", "create_encoder", "load_encoder"]
