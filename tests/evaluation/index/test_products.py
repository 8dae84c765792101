"""All products of a bank with queries, against float64, whichever library multiplies."""

import faiss
import pytest
import torch
from torch import Tensor

from groco_cli.evaluation.index import products
from groco_cli.evaluation.index.loading import load_faiss
from groco_cli.evaluation.index.products import Products

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SEEN = load_faiss()[0].get_num_gpus()
DEVICES = [CPU, pytest.param(CUDA, marks=pytest.mark.skipif(not SEEN, reason="no CUDA GPU that FAISS sees"))]


def check(multiply: Products, bank: Tensor, queries: Tensor) -> None:
    found, expected = multiply(bank, queries), bank.double() @ queries.double().T
    assert (found.dtype, found.device) == (torch.float32, CPU)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES, ids=["CPU", "CUDA"])
@pytest.mark.parametrize(("bank", "queries"), [(1, 1), (7, 3), (100, 30), (2048, 5), (2049, 5), (5000, 2), (0, 4)])
def test_every_product_is_there_in_its_place(vectors, device, bank: int, queries: int):
    multiply = Products(device)
    assert multiply.backend.startswith("FAISS")
    check(multiply, vectors(bank), vectors(queries, seed=1))


def test_copies_of_a_vector_have_a_product_each(vectors):
    bank = vectors(3).repeat(5, 1)
    check(Products(CPU), bank, vectors(2, seed=1))


@pytest.mark.usefixtures("without_faiss")
def test_torch_serves_where_faiss_is_absent_and_says_so(vectors):
    multiply = Products(CPU)
    assert multiply.backend == "torch, exact, fp32, cpu (FAISS is not installed)"
    check(multiply, vectors(100), vectors(3, seed=1))


def test_torch_takes_over_where_a_gpu_fails_and_says_why(vectors, monkeypatch):
    """A GPU is played by the CPU; FAISS's failure by its own words."""

    class OutOfMemory:
        METRIC_INNER_PRODUCT = faiss.METRIC_INNER_PRODUCT
        calls = 0

        @staticmethod
        def StandardGpuResources() -> object:  # noqa: N802 - FAISS's name
            return object()

        @classmethod
        def knn_gpu(cls, *_: object, **__: object) -> None:
            cls.calls += 1
            raise RuntimeError("Error in allocMemory: 'err == cudaSuccess' failed: cudaMalloc error out of memory")

    monkeypatch.setattr(products, "choose_library", lambda options, k, device: (OutOfMemory, ""))
    multiply = Products(CUDA)
    assert multiply.backend == "FAISS knn_gpu, exact, GPU"
    multiply._device = CPU
    for _ in range(2):
        check(multiply, vectors(9), vectors(3, seed=1))
    assert multiply.backend == "torch, exact, fp32, cpu (FAISS ran out of the GPU's memory)"
    assert OutOfMemory.calls == 1
