"""Importing FAISS with the matrix products that the processor can do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from groco_cli.errors import first_line

_VARIABLE = "OPENBLAS_CORETYPE"
_CORES = {"AVX512": "SkylakeX", "AVX2": "Haswell"}  # what torch finds a processor to have: OpenBLAS's name for it


def load_faiss() -> tuple[Any, str]:
    """FAISS's module, or None, and why it is not there."""
    try:
        with _core_named():
            import faiss
    except ModuleNotFoundError as error:
        if error.name == "faiss":
            return None, "FAISS is not installed"
        return None, f"FAISS cannot be loaded: {error}"
    except (ImportError, OSError, RuntimeError) as error:  # the last where NVIDIA's wheels are missing
        return None, f"FAISS cannot be loaded: {first_line(error)}"
    except SystemExit:  # of its loader
        return None, "FAISS cannot be loaded: its compiled part is missing"
    return faiss, ""


@contextmanager
def _core_named() -> Iterator[None]:
    """Tell OpenBLAS, while it is loaded, which kernels to take.

    FAISS's wheels (1.15 at least) bring OpenBLAS 0.3.15, which takes a processor that it does not know for a Prescott
    of 2004 (mended in 0.3.19, OpenBLAS's issue 3453): products without AVX, and slow. What the user set stays.
    """
    core = _CORES.get(torch.backends.cpu.get_cpu_capability())
    if core is None or _VARIABLE in os.environ or "faiss" in sys.modules:
        yield
        return
    os.environ[_VARIABLE] = core
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
