"""Which linear probe a command means: one anew, or with `--resume` the one in a folder, by its own settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groco_cli import console
from groco_cli.data.sources import Dataset, Source
from groco_cli.data.sources.fingerprints import fingerprint_of
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.comparison import Compared
from groco_cli.evaluation.fingerprint import encoder_hash
from groco_cli.evaluation.linear_protocol import ProbeSettings
from groco_cli.evaluation.linear_state import STATE, DataStamp, ProbeRun, read_run
from groco_cli.wording import counted

_OPTIONS = {"learning_rates": "--lr"}  # where an option is not called after its setting


def new_run(one: Compared, data: str, stamp: DataStamp, settings: ProbeSettings) -> ProbeRun:
    """A probe that is begun.

    Args:
        one: The encoder.
        data: What `--data` says.
        stamp: What it names.
        settings: The protocol's.
    """
    return ProbeRun(
        checkpoint=str(one.path),
        encoder=encoder_hash(one.encoder),
        data=data,
        stamp=stamp,
        settings=settings,
        processes=collectives.world_size(),
    )


def resumed_run(output: Path, settings: Mapping[str, Any], checkpoints: Sequence[Path], data: str | None) -> ProbeRun:
    """The probe in a folder, which keeps its settings.

    Args:
        output: The folder.
        settings: Of `ProbeSettings`, those that were given.
        checkpoints: Those that were given.
        data: What `--data` says, if it was given.

    Raises:
        UsageError: If there is none, or what was given contradicts it.
        GrocoError: If its state is damaged.
    """
    if len(checkpoints) > 1:
        raise UsageError("--resume goes on with one probe", "leave out the checkpoints")
    run = read_run(output.expanduser())
    kept = asdict(run.settings) | {"data": run.data}
    for name, value in {**settings, **({"data": data} if data else {})}.items():
        if value != kept[name]:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"--resume takes the probe's own settings, not another {option}", f"leave out {option}")
    if checkpoints and str(checkpoints[0]) != run.checkpoint:
        console.note(f"the probe was begun with {run.checkpoint}")
    if run.processes != collectives.world_size():
        begun, now = run.processes, collectives.world_size()
        console.note(
            f"the probe was begun in {counted(begun, 'process', 'processes')}, not {now}: the same but for rounding"
        )
    return run


def check_same_encoder(run: ProbeRun, one: Compared) -> None:
    """Check that the weights are those that a probe was begun with.

    Raises:
        GrocoError: If they are others.
    """
    if run.encoder != encoder_hash(one.encoder):
        raise GrocoError(f"--resume: {one.path} has other weights now", "start anew with another --output")


def stamp_of(dataset: Dataset) -> DataStamp:
    """What a data set is known again by; the first process looks at the images, and all are told.

    Args:
        dataset: Labelled, with a held-out part.

    Raises:
        GrocoError: If an image's file cannot be read.
    """
    assert dataset.test is not None
    hashes = ("", "")
    with collectives.failing_together():
        if collectives.rank() == 0:
            hashes = _hash_of(dataset.train), _hash_of(dataset.test)
    train, test = collectives.from_first(hashes)
    return DataStamp(classes=dataset.train.classes, train=train, test=test)


def _hash_of(part: Source) -> str:
    assert part.labels is not None
    return fingerprint_of([part.fingerprint().encode(), part.labels.contiguous().numpy().data])


def check_same_data(run: ProbeRun, stamp: DataStamp) -> None:
    """Check that the data are those that a probe was begun with: its scores would else pass for those of others.

    Raises:
        GrocoError: If they are others.
    """
    before, now = asdict(run.stamp), asdict(stamp)
    parts = {"classes": "classes", "train": "training images", "test": "held-out images"}
    if changed := [name for part, name in parts.items() if before[part] != now[part]]:
        raise GrocoError(
            f"--resume: {run.data} has other {', '.join(changed)} now",
            "put them back as they were, or start anew with another --output",
        )


def probe_outputs(output: Path | None, names: Sequence[str], *, resume: bool) -> list[str]:
    """Where each probe goes: `--output` itself, or, of several, a folder in it with the encoder's name.

    Args:
        output: What `--output` says, if it was given.
        names: The encoders'.
        resume: Whether a probe is there already.

    Returns:
        A place for each; "" for the next that is free.

    Raises:
        UsageError: If one is there and should not.
    """
    if output is None:
        return [""] * len(names)
    places = [output] if len(names) == 1 else [output / name.replace("/", "-") for name in names]
    for place in places:
        if not resume and collectives.rank() == 0 and (place.expanduser() / STATE).exists():
            raise UsageError(
                f"--output {place} already holds a linear probe", "type --resume to go on, or name another"
            )
    return list(map(str, places))
