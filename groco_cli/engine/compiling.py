"""torch.compile for the networks: the same weights by the same names, in kernels made for them."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from groco_cli.errors import GrocoError, first_line

_BACKEND = "inductor"


def compile_networks(model: nn.Module) -> None:
    """Have each network of a model compiled when it is first called, in place, so that checkpoints keep their names.

    One compilation for each shape: batches never change theirs, and kernels for any shape are slower.
    """
    # That tables behind a cache are traced, as is meant.
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`", UserWarning)
    for network in model.children():
        network.compile(backend=_BACKEND, dynamic=False)


def uncompiled() -> AbstractContextManager[object]:
    """Call compiled networks as they were written: for a score, whose pictures have shapes of their own."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def compiler_explained() -> Iterator[None]:
    """Say in one line why nothing could be compiled.

    Raises:
        GrocoError: In place of the compiler's error.
    """
    try:
        yield
    except RuntimeError as error:
        # By their names: their modules take seconds to import, which nobody else has to wait for.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        cause = getattr(error, "inner_exception", error)
        raise GrocoError(
            f"torch.compile failed: {first_line(cause)}", "install a C++ compiler such as g++, or leave --compile out"
        ) from error
