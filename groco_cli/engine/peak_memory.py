"""The most memory that something has in use at a time."""

from collections.abc import Callable

import torch
from torch.profiler import profile


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Run it, and measure what torch allocates above what it had allocated before.

    Args:
        run: What to run, once.
        device: Where it computes: a CUDA device, or the CPU.

    Returns:
        Bytes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    # On a CPU only the profiler sees what torch's allocator gives and takes.
    with profile(profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    in_use = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            in_use += event.nbytes()
            peak = max(peak, in_use)
    return peak
