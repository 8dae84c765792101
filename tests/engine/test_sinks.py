"""TensorBoard and Weights & Biases: what they are given, read back from their files; and what happens if they fail."""

import dataclasses
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from groco_cli.engine import sinks
from groco_cli.engine.configuration import override, resume_settings, to_toml
from groco_cli.engine.metrics import MetricsLog, read_metrics
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.trainer import pretrain
from groco_cli.errors import GrocoError, UsageError

Curves = dict[str, list[tuple[int, float]]]  # name → (step, value)


def logging_to(settings: PretrainSettings, *names: str) -> PretrainSettings:
    return dataclasses.replace(settings, run=dataclasses.replace(settings.run, log_to=names))


def curves_of(metrics: Path) -> Curves:
    """What metrics.jsonl has, as curves."""
    curves: Curves = {}
    for line in read_metrics(metrics):
        for name, value in line.items():
            if name not in ("kind", "step"):
                curves.setdefault(f"{line['kind']}/{name}", []).append((line["step"], value))
    return curves


def assert_same(read: Curves, written: Curves, precision: float) -> None:
    assert read.keys() == written.keys()
    for name, points in written.items():
        assert [step for step, _ in read[name]] == [step for step, _ in points], name
        assert [value for _, value in read[name]] == pytest.approx([value for _, value in points], rel=precision), name


@pytest.fixture
def tensorboard():
    """Reads the scalars of a run as TensorBoard shows them."""
    pytest.importorskip("tensorboard", reason="no package tensorboard: pip install 'groco[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> Curves:
        events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read


@pytest.fixture
def wandb(monkeypatch):
    """The package, offline."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    return pytest.importorskip("wandb", reason="no package wandb: pip install 'groco[wandb]'")


def wandb_records(file: Path) -> Iterator[object]:
    """The records of an offline run: LevelDB's log format (32-KiB blocks) behind 7 bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_curves(file: Path) -> Curves:
    curves: Curves = {}
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                if not name.startswith("_"):
                    curves.setdefault(name, []).append((int(items["_step"]), value))
    return curves


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"))


def test_tensorboard_has_what_metrics_jsonl_has(tiny, tensorboard):
    run = RunFolder(pretrain(logging_to(tiny, "tensorboard")))
    written = curves_of(run.metrics)
    assert [step for step, _ in written["train/loss"]] == list(range(1, 10))
    assert [step for step, _ in written["knn/top1"]] == [0, 9]
    assert_same(tensorboard(run.path), written, 1e-6)  # it keeps float32


@pytest.mark.parametrize("saved_at", [0, 3])
def test_tensorboard_shows_a_resumed_run_once(tiny, tensorboard, tmp_path, saved_at):
    settings, metrics = logging_to(tiny, "tensorboard"), tmp_path / "metrics.jsonl"
    log = MetricsLog(metrics, 0, sinks.open_sinks(settings, tmp_path, 0))
    for step in range(1, 6):
        log.write("train", step, {"loss": 1.0})
    log.close()  # killed after step 5; saved before
    log = MetricsLog(metrics, saved_at, sinks.open_sinks(settings, tmp_path, saved_at))
    for step in range(saved_at + 1, 8):
        log.write("train", step, {"loss": 0.5})
    log.close()
    expected = [(step, 1.0 if step <= saved_at else 0.5) for step in range(1, 8)]
    assert tensorboard(tmp_path)["train/loss"] == expected


def test_an_offline_run_of_wandb_has_what_metrics_jsonl_has(tiny, wandb):
    settings = logging_to(tiny, "wandb")
    run = RunFolder(pretrain(settings))
    (file,) = offline_runs(run.path)
    assert_same(wandb_curves(file), curves_of(run.metrics), 1e-12)
    (begun,) = [record.run for record in wandb_records(file) if record.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name) == ("groco", "run")
    assert begun.run_id == (run.path / "wandb/id.txt").read_text()
    config = {entry.key: json.loads(entry.value_json) for entry in begun.config.update}
    assert config["optim"] == dataclasses.asdict(settings.optim)


def test_a_resumed_run_keeps_its_id_and_steps_at_wandb(tiny, wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "sorting")
    settings = logging_to(tiny, "wandb")
    for step in (0, 3):
        (sink,) = sinks.open_sinks(settings, tmp_path, step)
        sink.write("train", step + 1, {"loss": 0.5})
        sink.close()
    first, second = (list(wandb_records(file)) for file in offline_runs(tmp_path))
    runs = [r.run for r in (*first, *second) if r.WhichOneof("record_type") == "run"]
    assert len(runs) == 2
    assert runs[0].run_id == runs[1].run_id
    assert runs[0].project == "sorting"
    assert [wandb_curves(file) for file in offline_runs(tmp_path)] == [
        {"train/loss": [(1, 0.5)]},
        {"train/loss": [(4, 0.5)]},
    ]


def test_wandb_that_does_not_start_is_one_line_with_its_remedy(tiny, wandb, tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.errors.UsageError("no API key\nconfigured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(GrocoError) as caught:
        sinks.open_sinks(logging_to(tiny, "wandb"), tmp_path, 0)
    assert caught.value.message == "--log-to wandb: UsageError: no API key configured"
    assert "WANDB_MODE=offline" in caught.value.hint


@pytest.mark.parametrize("name", sinks.SINKS)
def test_a_missing_package_is_told_before_anything_is_begun(tiny, monkeypatch, name):
    monkeypatch.setattr(sinks, "find_spec", lambda package: None if package == name else object())
    with pytest.raises(GrocoError, match=f"--log-to {name}") as caught:
        pretrain(logging_to(tiny, name))
    assert f"pip install 'groco[{name}]'" in caught.value.hint
    assert not Path(tiny.run.output).exists()


class Failing:
    """A sink whose place is full from the third line on, and that cannot be closed either."""

    def __init__(self, *_: object) -> None:
        self.lines = 0

    def write(self, kind, step, values):
        self.lines += 1
        if self.lines == 3:
            raise OSError("no space\nleft")
        assert self.lines < 3, "it was asked again"

    def close(self):
        raise OSError("no space left")


def test_a_sink_that_fails_is_left_out_with_one_warning_and_the_run_goes_on(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sinks, "TensorBoardSink", Failing)
    monkeypatch.setattr(sinks, "check_installed", lambda names: None)
    monkeypatch.setattr("groco_cli.engine.trainer.check_installed", lambda names: None)
    run = RunFolder(pretrain(logging_to(tiny, "tensorboard")))
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: --log-to tensorboard failed (OSError: no space left): going on without it"]
    assert [step for step, _ in curves_of(run.metrics)["train/loss"]] == list(range(1, 10))
    assert run.latest.exists()


def test_a_sink_is_given_every_line_and_closed_once(tmp_path):
    class Listening:
        def __init__(self):
            self.heard = []

        def write(self, kind, step, values):
            self.heard.append((kind, step, dict(values)))

        def close(self):
            self.heard.append("closed")

    listening = Listening()
    log = MetricsLog(tmp_path / "metrics.jsonl", sinks=[listening])
    log.write("train", 1, {"loss": math.pi})
    log.close()
    assert listening.heard == [("train", 1, {"loss": math.pi}), "closed"]


def test_an_unknown_place_is_refused_with_the_nearest(tiny):
    with pytest.raises(UsageError) as caught:
        override(tiny, {"run": {"log_to": ("tensorbord",)}}, "options")
    assert caught.value.message.startswith("--log-to tensorbord")
    assert "'tensorboard'" in caught.value.hint


def test_a_resumed_run_may_log_elsewhere(tiny, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(logging_to(tiny, "wandb")))
    assert resume_settings(file, {}).run.log_to == ("wandb",)
    assert resume_settings(file, {"run": {"log_to": ("tensorboard",)}}).run.log_to == ("tensorboard",)
