"""How a command's features come to be: where, by how many processes that decode, and where they are kept."""

from dataclasses import dataclass
from pathlib import Path

import torch

from groco_cli import devices
from groco_cli.evaluation.feature_cache import check_dtype


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What `--device`, `--workers` and the options of the cache say.

    Args:
        device: Where features are computed.
        workers: Processes that decode.
        cache: Where features are kept; None to keep them in memory alone.
        cache_dtype: What they are kept in: "fp32" or "fp16".
    """

    device: torch.device
    workers: int
    cache: Path | None
    cache_dtype: str

    def __str__(self) -> str:
        """For people: "features on cuda:0 (NVIDIA H200), kept in fp16"."""
        return f"features on {devices.describe(self.device)}" + ", kept in fp16" * (self.cache_dtype == "fp16")


def choose_extraction(
    device: str, workers: int | None, *, cache: Path | None = None, cache_dtype: str | None = None
) -> Extraction:
    """Check the options of a command that runs under `groco_cli.distributed.command.over_processes`.

    Args:
        device: This process's own.
        workers: Its part of them.
        cache: As `choose_cache` gives it.
        cache_dtype: The value of `--cache-dtype`; None for float32.

    Raises:
        UsageError: If there is no such device, or features cannot be kept in that type.
    """
    assert workers is not None  # over_processes gives each process its part
    check_dtype(cache_dtype or "fp32")
    return Extraction(
        device=devices.choose_device(device), workers=workers, cache=cache, cache_dtype=cache_dtype or "fp32"
    )
