"""One step of training, built from settings: forward, loss, backward, optimiser."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from groco_cli import devices
from groco_cli.engine.checkpoint import TrainingState
from groco_cli.engine.compiling import compile_networks
from groco_cli.engine.configuration import binding
from groco_cli.engine.methods import Compared, Method
from groco_cli.engine.objective import build_method
from groco_cli.engine.optim import OPTIMIZERS
from groco_cli.engine.processes import Processes
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import UsageError
from groco_cli.losses.base import ViewLoss

PARTS = ("forward", "loss", "backward", "optimiser")


class TrainingStep:
    """The networks, the loss and the optimiser, and how they take one step.

    What the networks draw at random (drop path, dropout) depends on the seed, the step and the process alone, not on
    what was drawn before: a resumed run draws the same.

    Args:
        model: The networks, on the device.
        loss: What is minimised.
        state: The optimiser and the scaler of the model's gradients, and where all that changes is kept.
        positive_views: The first of the views that serve as positives.
        processes: This process, and those that it trains with.
        precision: A resolved one: "fp32", "bf16" or "fp16".
        seed: The run's.
    """

    def __init__(
        self,
        model: Method,
        loss: ViewLoss,
        state: TrainingState,
        *,
        positive_views: int,
        processes: Processes,
        precision: str,
        seed: int,
    ) -> None:
        self.model, self.loss, self.state = model, loss, state
        self._positive_views, self._processes, self._precision = positive_views, processes, precision
        self._seed = seed
        self._parallel = processes.parallel(model)

    def __call__(
        self,
        views: Sequence[Tensor],
        *,
        progress: float,
        rate: float,
        done: Callable[[str], None] | None = None,
    ) -> tuple[Tensor, Compared]:
        """Take a step, reading nothing from the device that would have to be waited for.

        Args:
            views: This process's part of a batch, ready for the encoder, one tensor [B, 3, size, size] a view.
            progress: Share of the training that is done, in [0, 1].
            rate: The learning rate.
            done: Told each of `PARTS` when it is over, for who measures them.

        Returns:
            The loss over all processes, without gradient, and what it compared.
        """
        done = done or _nobody
        self._draw_anew()
        self.model.before_step(progress)
        with devices.autocast(self._processes.device, self._precision):
            compared = self._parallel([view.contiguous(memory_format=torch.channels_last) for view in views])
            done("forward")
            loss = self.loss(compared.anchors, self._positive_views, compared.targets)
        done("loss")
        # Not before: on a CPU the new gradients take the memory of the old, which forward would have split up.
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.scaler.scale(loss).backward()
        done("backward")
        self._optimise(rate)
        done("optimiser")
        self.state.step += 1
        return self._processes.mean(loss.detach()), compared

    def _draw_anew(self) -> None:
        entropy = np.random.SeedSequence([self._seed, self.state.step, self._processes.rank])
        seed = int(entropy.generate_state(1, np.uint64)[0])
        if self._processes.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # torch's function for all devices takes ten times as long here
        else:
            torch.manual_seed(seed)

    def _optimise(self, rate: float) -> None:
        optimizer, scaler = self.state.optimizer, self.state.scaler
        for group in optimizer.param_groups:
            group["lr"] = rate
        before = self._scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.is_enabled():
            self.state.overflows = self.state.overflows + (self._scale() < before)  # lowered: this step was left out

    def _scale(self) -> Tensor:
        """The scaler's factor; `get_scale` would wait for the device."""
        return self.state.scaler.scale(torch.ones((), device=self._processes.device))


def build_step(settings: PretrainSettings, loss: ViewLoss, processes: Processes, precision: str) -> TrainingStep:
    """Build networks with random weights, their optimiser and scaler, on the processes' device.

    Args:
        settings: The run's; weights follow from its seed.
        loss: What is minimised.
        processes: This process, and those that it trains with.
        precision: A resolved one: "fp32", "bf16" or "fp16".

    Raises:
        UsageError: If there is no such architecture, it cannot be built as asked, or its BN would see single images.
    """
    device, optim = processes.device, settings.optim
    torch.manual_seed(settings.run.seed)
    model = processes.together(build_method(settings)).to(memory_format=torch.channels_last).to(device)
    _check_statistics(settings, model, processes)
    if settings.run.compile:
        compile_networks(model)
    state = TrainingState(
        model,
        OPTIMIZERS[optim.optimizer](model, optim.peak_learning_rate, optim.momentum, optim.weight_decay),
        torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        binding(settings),
    )
    return TrainingStep(
        model,
        loss,
        state,
        positive_views=settings.views.views,
        processes=processes,
        precision=precision,
        seed=settings.run.seed,
    )


def _check_statistics(settings: PretrainSettings, model: Method, processes: Processes) -> None:
    """Refuse micro-batches that leave BN one image to take statistics of."""
    has_bn = any(isinstance(module, _BatchNorm) for module in model.encoder.modules())
    views = [number for number in (settings.views.views, settings.views.local_views) if number]
    together = min(views) if model.passes.forward == "joint" else 1
    images = model.passes.smallest(settings.optim.batch_size // processes.world) * together * processes.world
    if has_bn and images == 1:
        micro_batch = settings.optim.micro_batch
        raise UsageError(
            f"--micro-batch {micro_batch} leaves the encoder's BN a single image to take statistics of",
            f"type --micro-batch {2 * micro_batch} or more",
        )


def _nobody(part: str) -> None:
    """Nobody measures."""
