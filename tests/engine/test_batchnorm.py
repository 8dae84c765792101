"""BN over processes: two with half the batch each equal one with all of it, to the gradient of every weight."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from groco_cli.engine.batchnorm import with_common_statistics

IMAGES = 6


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    return nn.Sequential(*layers, nn.BatchNorm1d(5, affine=False, momentum=None)).double()


def images() -> Tensor:
    # The halves differ in mean and spread.
    noise = torch.randn(IMAGES, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(1, 3, IMAGES).view(-1, 1, 1, 1) + torch.arange(IMAGES).view(-1, 1, 1, 1)


def measured(model: nn.Module, pictures: Tensor) -> dict[str, Tensor]:
    """What two steps leave behind: the output, the gradients of a loss that is a mean, and the running statistics."""
    for _ in range(2):
        model.zero_grad()
        output = model(pictures)
        output.double().sin().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"output": output.detach(), **gradients, **dict(model.named_buffers())}


def measured_in_bf16(model: nn.Module, pictures: Tensor) -> dict[str, Tensor]:
    """Likewise with weights in float32 and activations in bfloat16: what `--precision bf16` makes of a network."""
    with torch.autocast("cpu", torch.bfloat16):
        return measured(model.float(), pictures.float())


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = with_common_statistics(network(), torch.device("cpu"))
    result = measured(model, images().chunk(2)[rank])
    result["evaluated"] = model.eval()(images())
    in_bf16 = measured_in_bf16(with_common_statistics(network(), torch.device("cpu")), images().chunk(2)[rank])
    result |= {f"bf16 {name}": value for name, value in in_bf16.items()}
    torch.save({name: value.detach() for name, value in result.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_equal_one(halves):
    model = network()
    whole = measured(model, images())
    torch.testing.assert_close(torch.cat([half["output"] for half in halves]), whole["output"])
    for name, _ in model.named_parameters():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, whole[name])  # as DDP averages
    for name, buffer in model.named_buffers():
        assert torch.equal(halves[0][name], halves[1][name])
        torch.testing.assert_close(halves[0][name], buffer)
    torch.testing.assert_close(halves[0]["evaluated"], model.eval()(images()))


def test_two_processes_equal_one_in_bf16_and_keep_their_statistics_in_float32(halves):
    model = network()
    whole = measured_in_bf16(model, images())
    halves = [{name: half[f"bf16 {name}"] for name in whole} for half in halves]
    near = {"atol": 2e-2, "rtol": 2e-2}  # bfloat16 keeps eight bits
    assert halves[0]["output"].dtype == whole["output"].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat([half["output"] for half in halves]), whole["output"], **near)
    for name, _ in model.named_parameters():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, whole[name], **near)
    for name, buffer in model.named_buffers():
        assert torch.equal(halves[0][name], halves[1][name])
        torch.testing.assert_close(halves[0][name], buffer, **near)  # the type too


def test_the_processes_own_statistics_would_differ(halves):
    alone = measured(network(), images().chunk(2)[0])
    assert not torch.allclose(alone["output"], halves[0]["output"], atol=0.1)


def test_weights_keep_their_names_and_places():
    model = network()
    converted = with_common_statistics(copy.deepcopy(model), torch.device("cpu"))
    assert list(converted.state_dict()) == list(model.state_dict())
    own = copy.deepcopy(model)
    weight = own[1].weight
    assert with_common_statistics(own, torch.device("cpu"))[1].weight is weight
