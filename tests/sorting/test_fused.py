"""The fused kernels against autograd through the definition: in Triton's interpreter, and compiled without a GPU."""

import multiprocessing
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from groco_cli.sorting import SortingNetwork
from groco_cli.sorting.comparators import NETWORKS, steps_of
from groco_cli.sorting.forms import form_for
from groco_cli.sorting.group_mass import group_mass, group_mass_eager
from groco_cli.sorting.relaxations import RELAXATIONS

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BETA = 0.9  # not exact in float32


class Case(NamedTuple):
    """A network, and the lists it sorts; a program of the kernels takes 32 / (size up to a power of 2) of them."""

    kind: str
    relaxation: str
    size: int
    anchors: int
    k: int = 2
    dtype: torch.dtype = torch.float64
    lists: str = "plain"

    def values(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.size)
        x = torch.randn(self.anchors, self.size, dtype=self.dtype, generator=generator)
        if self.lists == "not finite":
            for row, odd in enumerate([torch.nan, torch.inf, -torch.inf]):
                x[row, row] = odd
        if self.lists == "columns":
            return x.T.contiguous().T
        return torch.stack([x, -x]).transpose(0, 1) if self.lists == "stacked" else x


EVERY = [(kind, relaxation) for kind in NETWORKS for relaxation in RELAXATIONS]
CASES = [
    *(Case(kind, relaxation, 5, 5) for kind, relaxation in EVERY),
    *(Case("odd_even", relaxation, 4, 3, dtype=torch.float32) for relaxation in RELAXATIONS),
    *(Case(kind, relaxation, 3, 4, lists="not finite") for kind, relaxation in EVERY),
    *(
        Case(kind, "cauchy", size, anchors)
        for kind in NETWORKS
        for size, anchors in ((2, 17), (3, 8), (8, 5), (11, 3), (17, 2), (32, 1))
    ),
    *(Case(kind, "cauchy", 11, 2, dtype=torch.float32) for kind in NETWORKS),
    Case("bitonic", "logistic", 40, 1),
    *(Case("odd_even", "cauchy", 4, 3, k) for k in range(5)),
    *(Case("odd_even", "cauchy", 3, 5, lists=lists) for lists in ("columns", "stacked")),
]


def measured(form, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Masses, and the gradient of a weighted sum of them."""
    x = case.values().requires_grad_()
    mass = form(x, case.k, case.kind, case.relaxation, BETA)
    (gradient,) = torch.autograd.grad((mass * torch.linspace(-1, 2, case.size, dtype=x.dtype)).sum(), x)
    return mass.detach(), gradient


def interpret(path: str) -> None:
    """Save what the kernels give for every case, run by Triton's interpreter; for a process of its own."""
    import numpy as np
    import triton.language as tl
    from triton.language.extra import libdevice
    from triton.runtime.interpreter import TensorHandle

    # The interpreter has no CUDA library of functions; NumPy's stands in for the one that the kernels call.
    libdevice.atan = lambda x: tl.tensor(TensorHandle(np.arctan(x.handle.data), x.dtype.scalar), x.type)
    from groco_cli.sorting.fused import fused_group_mass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, on infinite values
        torch.save([measured(fused_group_mass, case) for case in CASES], path)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict[Case, tuple[torch.Tensor, torch.Tensor]]:
    """What the kernels give for every case. Triton reads once, when imported, that it is to interpret."""
    path = tmp_path_factory.mktemp("interpreted") / "results.pt"
    process = multiprocessing.get_context("spawn").Process(target=interpret, args=(str(path),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        process.start()
    process.join()
    assert process.exitcode == 0
    return dict(zip(CASES, torch.load(path, weights_only=True), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_masses_and_gradients_are_those_of_autograd(interpreted, case):
    tolerance = 1e-12 if case.dtype == torch.float64 else 1e-5
    for ours, theirs in zip(interpreted[case], measured(group_mass_eager, case), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance, equal_nan=True)
    if case.lists == "not finite":
        assert interpreted[case][1].isfinite().all(dim=1).tolist() == [False, False, False, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
@pytest.mark.parametrize("size", [2, 11, 32, 64, 100, 256])
@pytest.mark.parametrize(("kind", "relaxation"), EVERY)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_on_a_gpu_masses_and_gradients_are_those_of_the_cpu(kind, relaxation, size, dtype, tolerance):
    assert form_for(torch.device("cuda")) is not group_mass
    x = Case(kind, relaxation, size, 333, dtype=dtype).values()
    weights = torch.linspace(-1, 2, size, dtype=dtype)
    results = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).requires_grad_()
        mass = SortingNetwork(size, kind, relaxation, BETA).group_mass(leaf, size // 3)
        (gradient,) = torch.autograd.grad((mass * weights.to(device)).sum(), leaf)
        results.append((mass.detach().cpu(), gradient.cpu()))
    for cpu, gpu in zip(*results, strict=True):
        torch.testing.assert_close(gpu, cpu, atol=tolerance, rtol=tolerance)


COMPILED = [
    *((direction, "cauchy", "fp32", capability) for direction in ("forward", "backward") for capability in (80, 90)),
    *(("backward", relaxation, "fp64", 80) for relaxation in RELAXATIONS),
]


@pytest.mark.parametrize(("direction", "relaxation", "dtype", "capability"), COMPILED)
def test_kernels_compile_for_real_gpus(direction, relaxation, dtype, capability, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from groco_cli.sorting import kernels

    if not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists():
        pytest.skip("this Triton brings no ptxas")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(kernels, direction)
    probability, slope = kernels.RELAXATIONS[relaxation]
    constants = {"size": 11, "steps": 11, "lists": 2, "places": 16, "probability": probability, "slope": slope}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {"steps_ptr": "*i32", "anchors": "i32", "k": "i32", "beta": "fp64"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, f"*{dtype}") for name in kernel.arg_names},
        constexprs=constants,
    )
    options = {"num_warps": 1, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert f"sm_{capability}" in made.asm["ptx"]
    assert "shfl.sync" in made.asm["ptx"]  # places are exchanged within a warp,
    assert made.metadata.shared == 0  # not through memory
    assert len(made.asm["cubin"]) > 0


def test_programs_write_every_difference_that_they_read():
    """A lane that reads a pair which nobody wrote would read what was in memory before."""
    from groco_cli.sorting.fused import _table

    for kind in NETWORKS:
        for size in (2, 3, 11, 23, 64):
            for step, (partner, sign, pair) in zip(
                steps_of(kind, size), _table(kind, size, torch.device("cpu")).tolist(), strict=True
            ):
                written = {pair[place] for place in range(len(sign)) if sign[place] > 0}
                assert written == set(range(len(step[0])))
                assert set(pair) <= written
                assert [partner[other] for other in partner] == list(range(len(partner)))
                assert all(sign[place] == 0 for place in range(size, len(sign)))
