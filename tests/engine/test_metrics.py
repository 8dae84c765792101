"""metrics.jsonl: what is kept when a run is resumed or was killed."""

from groco_cli.engine.metrics import MetricsLog, read_metrics


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
