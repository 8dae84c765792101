"""The fault script, with few kills; `python tests/faults/kill_and_resume.py --kills 100` is the real thing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each life of the run is forked")
def test_a_run_killed_at_random_moments_ends_as_one_left_alone():
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run([sys.executable, str(script), "--kills", "3"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3 kills (")
    assert "nothing broken or lost" in done.stdout
