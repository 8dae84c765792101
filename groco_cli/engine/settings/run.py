"""Settings: where and how the run goes."""

from dataclasses import dataclass, fields

from groco_cli.devices import PRECISIONS
from groco_cli.distributed.launch import LaunchSettings
from groco_cli.engine.every import Every
from groco_cli.engine.settings.checks import at_least, between, one_of
from groco_cli.engine.sinks import SINKS

_LARGEST_SEED = 2**64 - 1  # that torch's generators take


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where and how the run goes.

    Args:
        output: The run's folder; "" for the next free one under runs/.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        compile: Whether torch.compile makes kernels for the networks; see `compiling`.
        seed: Of weights, order and views.
        save_every: How often everything is saved: "1" (epochs), "500steps", "10min", or several with commas between
            them, minutes counted from the last save for whatever reason; at the end in any case.
        keep: States kept to go on from, the newest ones.
        milestones: Epochs between checkpoints that are kept for good; 0 for the last only.
        log_every: Steps between lines of metrics.jsonl; the last step of an epoch has one in any case.
        knn_every: Epochs between k-NN scores of the curve, where there are labels; 0 for none but the first and last.
        log_to: What metrics go to besides metrics.jsonl: "tensorboard", "wandb".
        gpus: GPUs of each machine, one process each; 0 for one process on `device`.
        processes: Processes on each machine, on its CPU; see `launch`.
        nodes: Machines.
        rdzv: Where several machines meet, HOST:PORT.
        process_timeout: Minutes until a process that does not answer is given up.
    """

    output: str = ""
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    save_every: str = "1,30min"
    keep: int = 2
    milestones: int = 100
    log_every: int = 10
    knn_every: int = 5
    log_to: tuple[str, ...] = ()
    gpus: int = 0
    processes: int = 1
    nodes: int = 1
    rdzv: str = ""
    process_timeout: int = 30

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--precision", self.precision, PRECISIONS)
        between("--seed", self.seed, 0, _LARGEST_SEED)
        Every.parse_several(self.save_every, "--save-every")
        at_least("--keep", self.keep, 1)
        at_least("--milestones", self.milestones, 0)
        at_least("--log-every", self.log_every, 1)
        at_least("--knn-every", self.knn_every, 0)
        for name in self.log_to:
            one_of("--log-to", str(name), SINKS)
        self.launch()  # which checks the rest of them

    def launch(self) -> LaunchSettings:
        """How many processes train, and where."""
        return LaunchSettings(**{setting.name: getattr(self, setting.name) for setting in fields(LaunchSettings)})
