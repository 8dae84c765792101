"""Which form of the group mass runs where, without a GPU: fake tensors know their device and have no data."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from groco_cli.sorting import SortingNetwork, forms


@pytest.fixture
def fused(monkeypatch):
    """The devices that a stand-in for the fused form was called on."""
    called_on = []

    def fused_group_mass(x, *_):
        called_on.append(x.device)
        return x

    monkeypatch.setitem(sys.modules, "groco_cli.sorting.fused", SimpleNamespace(fused_group_mass=fused_group_mass))
    forms._form_for_gpu.cache_clear()
    yield called_on
    forms._form_for_gpu.cache_clear()


def test_tensors_on_a_gpu_take_the_fused_form(fused):
    with FakeTensorMode():
        for _ in range(2):
            SortingNetwork(5).group_mass(torch.ones(3, 5, device="cuda:1"), 2)
    assert fused == [torch.device("cuda:1")] * 3  # tried once, then used


def test_tensors_on_a_cpu_do_not(fused):
    mass = SortingNetwork(5).group_mass(torch.ones(3, 5), 2)
    torch.testing.assert_close(mass.sum(dim=1), torch.full((3,), 2.0))
    assert fused == []


def test_where_triton_does_not_run_one_warning_says_why(fused, monkeypatch):
    monkeypatch.setitem(sys.modules, "groco_cli.sorting.fused", None)  # as if it could not be imported
    with FakeTensorMode():
        with pytest.warns(RuntimeWarning, match=r"cuda:0.*groco_cli\.sorting\.fused.*same values") as said:
            masses = [SortingNetwork(5).group_mass(torch.ones(3, 5, device="cuda:0"), 2) for _ in range(3)]
        assert masses[0].shape == (3, 5)
    assert len(said) == 1
    assert said[0].filename == __file__  # the caller's line
