"""BN over the whole batch where it is spread over processes, so that many processes equal one.

On GPUs this is torch's SyncBatchNorm. It does not run on a CPU, where the same is written out here.
"""

from typing import Any, TypeVar

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from groco_cli import console
from groco_cli.losses.gathering import gathered

Model = TypeVar("Model", bound=nn.Module)
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GatheredBatchNorm(_BatchNorm):
    """BN with statistics of all processes, each holding as many images; for any device, and slower than torch's.

    As torch's, it computes in float32 at least, whatever precision its activations come and go in.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised activations, [B, C, ...], of the type they came in; see `nn.BatchNorm2d`."""
        if not self.training:
            running = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, *running, self.weight, self.bias, eps=self.eps)
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, *range(2, input.ndim)]
        own = torch.stack([exact.mean(axes), exact.var(axes, correction=0)])
        means, variances = gathered(own).unbind(1)  # [world, C] each
        mean = means.mean(0)
        variance = variances.mean(0) + means.var(0, correction=0)
        self._follow(mean.detach(), variance.detach(), len(means) * input.numel() // input.shape[1])
        shape = (1, -1, *[1] * (input.ndim - 2))
        normal = (exact - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def with_common_statistics(model: Model, device: torch.device) -> Model:
    """The model with BN over all processes; its weights are the same tensors, by the same names.

    Args:
        model: Any model.
        device: Where it computes.
    """
    if device.type == "cuda":
        # timm's knows its own BN with an activation, too; in place, but for a model that is a BN itself.
        convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model
    others = {type(module).__name__ for module in model.modules() if _is_bn(module) and type(module) not in _PLAIN}
    if others:
        console.note(f"{', '.join(sorted(others))}: each process takes its own statistics, as its part were the batch")
    _gathered(model)
    return model


def _is_bn(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)


def _gathered(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) in _PLAIN:
            setattr(module, name, _as_gathered(child))
        else:
            _gathered(child)


def _as_gathered(bn: Any) -> GatheredBatchNorm:
    made = GatheredBatchNorm(
        bn.num_features,
        eps=bn.eps,
        momentum=bn.momentum,
        affine=bn.affine,
        track_running_stats=bn.track_running_stats,
    )
    made.weight, made.bias = bn.weight, bn.bias
    made.running_mean, made.running_var = bn.running_mean, bn.running_var
    made.num_batches_tracked = bn.num_batches_tracked
    return made.train(bn.training)
