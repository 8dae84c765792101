"""Convolutions as matrix products: the same function as torch's."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from groco_cli.models.small_maps import SmallMapConv2d, multiply_small_maps


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_results_and_gradients_are_those_of_conv2d(size, kernel, stride, dilation):
    for padding in range(dilation * kernel):
        if size + 2 * padding < dilation * (kernel - 1) + 1:
            continue
        torch.manual_seed(0)
        plain = nn.Conv2d(2, 3, kernel, stride, padding, dilation, dtype=torch.float64)
        matrix = copy.deepcopy(plain)
        multiply_small_maps(matrix)
        assert type(matrix) is SmallMapConv2d
        x = torch.randn(2, 2, size, size + 1, dtype=torch.float64)
        expected, result = plain(x), matrix(x)
        torch.testing.assert_close(result, expected)
        for made in (expected, result):
            made.square().sum().backward()
        torch.testing.assert_close(matrix.weight.grad, plain.weight.grad)


def test_a_resnet_on_small_pictures_gives_the_same_features_for_fewer_operations():
    plain = timm.create_model("resnet18", num_classes=0).eval()
    matrix = copy.deepcopy(plain)
    multiply_small_maps(matrix)
    assert matrix.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(2, 3, 32, 32)
    operations = []
    for model in (plain, matrix):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            features = model(images)
        operations.append(counter.get_total_flops())
        torch.testing.assert_close(features, plain(images), atol=1e-4, rtol=1e-4)
    assert operations[1] < 0.75 * operations[0]


def test_other_paddings_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    multiply_small_maps(model)
    assert [type(module) for module in model] == [nn.Conv2d, nn.Conv2d]
