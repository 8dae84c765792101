"""Which library searches, and where."""

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.index.exact import MORE
from groco_cli.evaluation.index.faiss_gpu import GPU_MOST_NEIGHBOURS, LEAST_CAPABILITY, GpuFlatIndex
from groco_cli.evaluation.index.faiss_index import FlatIndex, InvertedIndex
from groco_cli.evaluation.index.falling_back import FallingBack
from groco_cli.evaluation.index.loading import load_faiss
from groco_cli.evaluation.index.options import IndexOptions
from groco_cli.evaluation.index.torch_index import TorchIndex
from groco_cli.wording import counted


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

    FAISS serves wherever it can; where it cannot, or gives up, torch does, finds the same, and says so.

    Args:
        bank: Features [n, D], not normalised, on the CPU; not changed, and to be left alone while it is searched.
        k: The most neighbours that will be asked for.
        options: How to search; None for exactly, in float32.
        device: Where to search.

    Raises:
        UsageError: For options that this machine, or this bank, cannot serve.
        GrocoError: If the memory of a GPU does not suffice.
    """
    options, device = options or IndexOptions(), torch.device(device)
    faiss, why = choose_library(options, k, device=device)
    if options.kind == "ivf" and len(bank) > options.ivf_above:
        return InvertedIndex(load_faiss()[0], bank, lists=options.lists, probes=options.probes, memory=options.memory)

    def torch_index(why: str) -> TorchIndex:
        return TorchIndex(bank, device=device, half=options.half, memory=options.memory, why=why)

    if not faiss:
        return torch_index(why)
    gpus = _gpus(options, device)
    if not gpus:
        return FlatIndex(faiss, bank, memory=options.memory)

    def gpu_index() -> GpuFlatIndex:
        torch.cuda.empty_cache()  # FAISS allocates by itself: what torch holds in reserve is lost to it
        return GpuFlatIndex(faiss, bank, gpus=gpus, half=options.half, memory=options.memory)

    return FallingBack(gpu_index, torch_index if len(gpus) == 1 else _no_other(gpus))


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
    why = why or _why_not_on(gpus, faiss.get_num_gpus(), k + MORE[0])
    if why and len(gpus) > 1:
        raise UsageError(f"--search-gpus {len(gpus)} from {device} on: {why}", "leave it out")
    return None if why else faiss, why


def _gpus(options: IndexOptions, device: torch.device) -> range:
    """The numbers of the GPUs to search on; none on other devices."""
    first = device.index or 0
    return range(first, first + options.gpus) if device.type == "cuda" else range(0)


def _why_not_on(gpus: range, seen: int, most: int) -> str:
    """Why FAISS cannot search for so many neighbours on some GPUs, "" where it can."""
    if gpus.stop > seen:
        return f"FAISS sees {counted(seen, 'GPU')}"
    if most > GPU_MOST_NEIGHBOURS:
        return f"FAISS finds {GPU_MOST_NEIGHBOURS - MORE[0]:,} neighbours on a GPU, no more"
    if any(torch.cuda.get_device_capability(gpu) < LEAST_CAPABILITY for gpu in gpus):
        return f"FAISS wants a GPU of compute capability {'.'.join(map(str, LEAST_CAPABILITY))}"
    return ""


def _no_other(gpus: range) -> Callable[[str], NoReturn]:
    def give_up(why: str) -> NoReturn:
        raise GrocoError(
            f"--search-gpus {len(gpus)}: {why}", "type --half, a smaller --search-memory, or --device cpu without it"
        )

    return give_up
