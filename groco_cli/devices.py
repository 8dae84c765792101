"""Which device the work runs on, in which precision, and how many processes may decode beside it."""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from groco_cli.errors import UsageError
from groco_cli.wording import counted

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_NO_MEMORY = ("you tried to allocate", "std::bad_alloc")  # torch's allocator for CPUs, and its C++ otherwise


def choose_device(name: str) -> torch.device:
    """The device for `--device`.

    Args:
        name: "auto" (the first GPU there is, else the CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        UsageError: If there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: no such device", "type auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not 0 <= (device.index or 0) < count:  # torch wraps cuda:1000 round to a negative index
            raise UsageError(f"--device {name}: this machine has {counted(count, 'CUDA GPU')}", "type --device auto")
        return torch.device("cuda", device.index or 0)
    if device.type not in ("cpu", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UsageError(f"--device {name}: not available on this machine", "type --device auto")
    return device


def describe(device: torch.device) -> str:
    """A device's name for people: "cuda:0 (NVIDIA H200)", "cpu (2 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({counted(torch.get_num_threads(), 'thread')})" if device.type == "cpu" else str(device)


def choose_precision(name: str, device: torch.device) -> str:
    """The precision for `--precision`: "auto" is bf16 where the hardware computes in it, else fp32.

    Raises:
        UsageError: For an unknown precision, or fp16 away from a CUDA GPU.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: no such precision", f"type one of {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type != "cuda":
        raise UsageError(f"--precision fp16 needs a CUDA GPU, not {device}", "type --precision bf16 or fp32")
    return ("bf16" if _computes_bf16(device) else "fp32") if name == "auto" else name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The autocast context of a resolved precision: "fp32", "bf16" or "fp16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@contextmanager
def convolutions_tuned(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its convolutions on a GPU and keep the quickest, which pays where batches keep their shape.

    The quickest differ from run to run, so whoever asked torch or cuDNN for determinism is left with that.
    """
    before = torch.backends.cudnn.benchmark
    exact = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = before or (device.type == "cuda" and not exact)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def whole_float32() -> Iterator[None]:
    """Without TF32 and bf16 in products and convolutions of float32, whatever torch was told before.

    By itself torch lets cuDNN convolve float32 in TF32, whose mantissa has ten bits.
    """
    backends = [
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    ]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def peak_memory(device: torch.device) -> int | None:
    """Most of a GPU's memory that this process had in use at a time, bytes; None elsewhere. Waits for nothing."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory, or the machine's, ran out; of the latter torch has no class."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: torch.device, sharing: int = 1) -> int:
    """Worker processes where none are asked for: all cores but one beside a GPU, none beside a CPU's own work.

    Threads that compute on a CPU wait for each other actively, and a worker that takes the core of one makes all wait:
    decoding in between is much faster.

    Args:
        device: What the process that they decode for computes on.
        sharing: How many such processes share the cores that it sees.
    """
    return 0 if device.type == "cpu" else max(1, min(16, usable_cores() // sharing - 1))


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AVX-512 BF16 or AMX, bf16 on a CPU is emulated and slower than fp32.
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
