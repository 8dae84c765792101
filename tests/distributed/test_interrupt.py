"""Signals to a real process: the first is heard at the end of the step, the second at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from groco_cli.engine.run_folder import RunFolder

PROGRAM = """
import signal, sys
from groco_cli import app
from groco_cli.engine.report import Report

def twice(self, step):
    if step == 2:
        signal.raise_signal({number})
        print("heard", flush=True)
        signal.raise_signal({number})
        print("went on", flush=True)

Report.step = twice
sys.exit(app.run(sys.argv[1:]))
"""
RUN = ("pretrain", "--arch", "test_resnet", "--subset", "64", "--batch-size", "32", "--negatives", "5", "--epochs", "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_second_signal_stops_at_once(tmp_path: Path, number: signal.Signals, code: int):
    run = RunFolder(tmp_path / "run")
    program = [sys.executable, "-c", PROGRAM.format(number=int(number))]
    ended = subprocess.run(
        [*program, *RUN, "--device", "cpu", "--output", str(run.path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "heard\n"
    assert "Traceback" not in ended.stderr
    assert [path.stem for path in run.states] == ["step-000000000"], "nothing was saved of the step"


LAUNCHED = """
import os, signal, sys, time
from pathlib import Path
from groco_cli.distributed.interrupt import STOP_FILE, StopRequest

file = Path(sys.argv[1])
os.environ[STOP_FILE] = str(file)
with StopRequest() as stop:
    signal.raise_signal(signal.SIGTERM)
    if sys.argv[2] == "asked":
        time.sleep(0.2)
        file.write_text(str(int(signal.SIGINT)))
    time.sleep(5)
print("went on, asked by", stop.signal)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "code", "said"), [("asked", 0, f"went on, asked by {int(signal.SIGINT)}\n"), ("alone", 143, "")]
)
def test_a_process_that_was_launched_ends_at_a_signal_unless_its_launcher_got_one_too(tmp_path, who, code, said):
    program = [sys.executable, "-c", LAUNCHED, str(tmp_path / "stop"), who]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, said, "")
