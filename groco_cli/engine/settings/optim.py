"""Settings: how it learns."""

from dataclasses import dataclass

from groco_cli.engine.optim import OPTIMIZERS
from groco_cli.engine.settings.checks import at_least, one_of, positive
from groco_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """How it learns.

    Args:
        optimizer: "sgd", "lars" or "adamw".
        learning_rate: For a batch of 256; see `lr_scaling`.
        lr_scaling: "linear" (learning_rate · batch/256), or "sqrt" (learning_rate · √(batch/256)).
        momentum: Of SGD and LARS.
        weight_decay: On every parameter, as published (LARS leaves out biases and BN).
        batch_size: Images per step, over all processes.
        micro_batch: Images of a process that go through the encoder together; 0 for its whole part of the batch.
        epochs: Passes over the training images.
        warmup_epochs: Of these, with a linearly growing learning rate.
    """

    optimizer: str = "sgd"
    learning_rate: float = 6.0
    lr_scaling: str = "linear"
    momentum: float = 0.9
    weight_decay: float = 1e-6
    batch_size: int = 1024
    micro_batch: int = 0
    epochs: int = 100
    warmup_epochs: int = 1

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after warm-up."""
        times = self.batch_size / 256
        return self.learning_rate * (times if self.lr_scaling == "linear" else times**0.5)

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--optimizer", self.optimizer, OPTIMIZERS)
        one_of("--lr-scaling", self.lr_scaling, ("linear", "sqrt"))
        positive("--lr", self.learning_rate)
        at_least("--momentum", self.momentum, 0)
        at_least("--weight-decay", self.weight_decay, 0)
        at_least("--batch-size", self.batch_size, 2)
        at_least("--micro-batch", self.micro_batch, 0)
        at_least("--epochs", self.epochs, 1)
        at_least("--warmup-epochs", self.warmup_epochs, 0)
        if self.warmup_epochs > self.epochs:
            raise UsageError(
                f"--warmup-epochs {self.warmup_epochs} is more than --epochs {self.epochs}",
                f"type --warmup-epochs {self.epochs // 10}",
            )
