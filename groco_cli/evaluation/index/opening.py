"""Which library searches, and where."""

from typing import Any, Protocol

import torch
from torch import Tensor

from groco_cli.errors import UsageError
from groco_cli.evaluation.index.faiss_index import GPU_MOST_NEIGHBOURS, FlatIndex, InvertedIndex
from groco_cli.evaluation.index.loading import load_faiss
from groco_cli.evaluation.index.options import IndexOptions
from groco_cli.evaluation.index.torch_index import TorchIndex


class Index(Protocol):
    """A bank that can be searched by cosine similarity.

    Attributes:
        backend: What serves, for people.
        exact: Whether what it finds is nearest of all.
    """

    backend: str
    exact: bool

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of the bank to each query: cosines, float32 [q, k], and rows, int64 [q, k], nearest first."""
        ...


def open_index(
    bank: Tensor, k: int, *, options: IndexOptions | None = None, device: torch.device | str = "cpu"
) -> Index:
    """Make a bank ready to be searched.

    FAISS serves wherever it can; where it cannot, torch does, finds the same, and says so.

    Args:
        bank: Features [n, D], not normalised, on the CPU; not changed, and to be left alone while it is searched.
        k: The most neighbours that will be asked for.
        options: How to search; None for exactly, in float32.
        device: Where to search.

    Raises:
        UsageError: For options that this machine, or this bank, cannot serve.
    """
    options, device = options or IndexOptions(), torch.device(device)
    faiss, why = choose_library(options, k, device=device)
    if options.kind == "ivf" and len(bank) > options.ivf_above:
        return InvertedIndex(load_faiss()[0], bank, lists=options.lists, probes=options.probes, memory=options.memory)
    if not faiss:
        return TorchIndex(bank, device=device, half=options.half, memory=options.memory, why=why)
    return FlatIndex(faiss, bank, gpus=_gpus(options, device), half=options.half, memory=options.memory)


def choose_library(options: IndexOptions, k: int, *, device: torch.device) -> tuple[Any, str]:
    """What searches a bank exactly; called before there is one, it tells what cannot be before any work.

    Args:
        options: How to search.
        k: The most neighbours that will be asked for.
        device: Where to search.

    Returns:
        FAISS's module; or None, for torch, and why.

    Raises:
        UsageError: For options that this machine cannot serve.
    """
    faiss, why = load_faiss()
    if options.kind == "ivf" and not faiss:
        raise UsageError(f"--index ivf: {why}", "install faiss-cpu, or leave --index out")
    gpus = _gpus(options, device)
    if not gpus:
        if options.half or options.gpus > 1:
            raise UsageError(f"--half and --search-gpus are for CUDA GPUs, not {device}", "leave them out")
        return faiss, why
    why = why or _why_not_on(gpus, faiss.get_num_gpus(), k)
    if why and len(gpus) > 1:
        raise UsageError(f"--search-gpus {len(gpus)} from {device} on: {why}", "leave it out")
    return None if why else faiss, why


def _gpus(options: IndexOptions, device: torch.device) -> range:
    """The numbers of the GPUs to search on; none on other devices."""
    first = device.index or 0
    return range(first, first + options.gpus) if device.type == "cuda" else range(0)


def _why_not_on(gpus: range, seen: int, k: int) -> str:
    """Why FAISS cannot search on some GPUs, "" where it can."""
    if gpus.stop > seen:
        return f"FAISS sees {seen} GPU{'s' * (seen != 1)}"
    if k > GPU_MOST_NEIGHBOURS:
        return f"FAISS finds {GPU_MOST_NEIGHBOURS:,} neighbours on a GPU, no more"
    return ""
