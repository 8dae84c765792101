import pytest
import torch

from groco_cli import devices
from groco_cli.devices import (
    PRECISIONS,
    autocast,
    choose_device,
    choose_precision,
    convolutions_tuned,
    default_workers,
    describe,
)
from groco_cli.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretends that this machine has so many GPUs, or Apple's: `machine(gpus=2)`."""

    def pretend(gpus: int = 0, *, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"), [(0, False, "cpu"), (1, False, "cuda:0"), (4, False, "cuda:0"), (0, True, "mps")]
)
def test_auto_takes_the_first_gpu_there_is(machine, gpus: int, mps: bool, expected: str):
    machine(gpus, mps=mps)
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize(("name", "expected"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_device_is_taken_as_asked_for(machine, name: str, expected: str):
    machine(gpus=2)
    assert choose_device(name) == torch.device(expected)


ABSENT = ["cuda:2", "cuda:1000", "cuda:-1", "cuda:x", "mps", "meta", "gpu", ""]


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (0, "cuda:0"), *((2, name) for name in ABSENT)])
def test_an_absent_device_is_told(machine, gpus: int, name: str):
    machine(gpus)
    with pytest.raises(UsageError, match=f"--device {name}: ") as caught:
        choose_device(name)
    assert "auto" in caught.value.hint


@pytest.mark.parametrize(("gpus", "counted"), [(0, "0 CUDA GPUs"), (1, "1 CUDA GPU$"), (2, "2 CUDA GPUs")])
def test_the_number_of_gpus_is_told(machine, gpus: int, counted: str):
    machine(gpus)
    with pytest.raises(UsageError, match=counted):
        choose_device("cuda:7")


def test_devices_are_described_for_people(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(CUDA) == "cuda:0 (NVIDIA H200)"
    assert describe(CPU) == "cpu (2 threads)"


@pytest.mark.parametrize("has_bf16", [True, False])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_auto_precision_is_bf16_only_where_the_hardware_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, has_bf16: bool
):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation
    )
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_bf16)
    assert choose_precision("auto", device) == ("bf16" if has_bf16 else "fp32")


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_precision_is_taken_as_asked_for(name: str):
    assert choose_precision(name, CUDA) == name


def test_fp16_is_refused_away_from_cuda():
    with pytest.raises(UsageError, match="--precision fp16 needs a CUDA GPU, not cpu"):
        choose_precision("fp16", CPU)


def test_an_unknown_precision_is_told_with_those_there_are():
    with pytest.raises(UsageError, match="--precision fp8") as caught:
        choose_precision("fp8", CPU)
    assert all(name in caught.value.hint for name in PRECISIONS)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_computed_in_the_precision(precision: str, expected: torch.dtype):
    matrix = torch.ones(2, 2)
    with autocast(CPU, precision):
        assert (matrix @ matrix).dtype == expected
    assert (matrix @ matrix).dtype == torch.float32


def test_processes_that_share_cores_divide_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 96)
    assert [default_workers(CUDA, sharing) for sharing in (1, 4, 8, 96)] == [16, 16, 11, 1]


def test_a_cpu_decodes_by_itself_and_a_gpu_has_workers():
    assert default_workers(CPU) == 0
    assert default_workers(CUDA) >= 1


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch):
    """What cuDNN is told, put back afterwards; it need not be there."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    return torch.backends.cudnn


@pytest.mark.parametrize(("device", "expected"), [(CUDA, True), (CPU, False)])
def test_convolutions_are_tuned_on_a_gpu_and_left_as_they_were_afterwards(cudnn, device, expected: bool):
    seen: list[bool] = []

    @convolutions_tuned(device)
    def train() -> None:
        seen.append(cudnn.benchmark)
        raise KeyError

    with pytest.raises(KeyError):
        train()
    assert (seen, cudnn.benchmark) == ([expected], False)


def test_who_asked_for_determinism_keeps_it(cudnn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with convolutions_tuned(CUDA):
        assert cudnn.benchmark is False
    monkeypatch.undo()
    with torch.backends.cudnn.flags(deterministic=True), convolutions_tuned(CUDA):
        assert cudnn.benchmark is False


def test_who_asked_for_tuning_keeps_it_too(cudnn):
    cudnn.benchmark = True
    with convolutions_tuned(CPU):
        assert cudnn.benchmark is True
    assert cudnn.benchmark is True
