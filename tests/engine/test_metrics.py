"""metrics.jsonl: what is kept when a run is resumed or was killed."""

import pytest

from groco_cli.engine.metrics import MetricsLog, read_metrics
from groco_cli.errors import GrocoError


def test_lines_are_read_back_as_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("train", 1, {"loss": 0.5})
    log.write("knn", 2, {"top1": 0.25})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "knn", "step": 2, "top1": 0.25},
    ]


def test_a_resumed_log_drops_what_will_be_run_again_and_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n{"kind": "tra')
    MetricsLog(path, step=1).close()
    assert path.read_text() == '{"kind": "train", "step": 1}\n'


@pytest.mark.parametrize("end", [b"\xff\xfe\x00\n", b"\x00" * 40, b'{"kind": "tr\xc3'])
def test_a_power_cut_that_spoils_the_end_costs_that_line_only(tmp_path, end):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n' + end)
    MetricsLog(path, step=9).close()
    assert path.read_bytes() == b'{"kind": "train", "step": 1}\n'


def test_a_run_from_its_beginning_keeps_nothing_of_one_that_was_killed_before_its_first_state(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "knn", "step": 0}\n')
    MetricsLog(path).close()
    assert path.read_text() == ""


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("train", 1, {"loss": 0.5})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    log.sync()
    log.close()


@pytest.mark.parametrize("cut", range(1, 44))
def test_a_line_cut_anywhere_costs_that_line_only(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    whole = '{"kind": "train", "step": 1, "loss": 0.5}\n'
    path.write_text(whole + whole.replace("1", "2", 1)[: cut - 1])
    MetricsLog(path, step=9).close()
    kept = 1 + (cut > len(whole) - 1)
    assert [line["step"] for line in read_metrics(path)] == [1, 2][:kept]
    assert path.read_text().count("\n") == kept


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    try:
        monkeypatch.setattr(log, "_file", open("/dev/full", "ab", buffering=0))  # noqa: PTH123, SIM115
    except OSError:
        pytest.skip("no /dev/full")
    with pytest.raises(GrocoError, match=r"cannot write .*metrics\.jsonl: No space left"):
        log.write("train", 1, {"loss": 0.5})
    log.close()
