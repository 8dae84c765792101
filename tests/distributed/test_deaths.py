import signal

import pytest

from groco_cli.distributed.deaths import killed


@pytest.mark.parametrize(
    ("number", "name", "hint"),
    [
        (signal.SIGKILL, "SIGKILL", "memory runs out"),
        (signal.SIGKILL, "SIGKILL", "begin a new run with a smaller --batch-size"),
        (signal.SIGBUS, "SIGBUS", "/dev/shm is full"),
        (signal.SIGABRT, "SIGABRT", "--process-timeout"),
        (signal.SIGABRT, "SIGABRT", "NCCL_DEBUG=WARN"),
        (signal.SIGSEGV, "SIGSEGV", "native code"),
        (signal.SIGTERM, "SIGTERM", "whoever sent it"),
        (40, "signal 40", "whoever sent it"),
    ],
)
def test_a_signal_is_named_with_its_usual_cause(number, name, hint):
    error = killed(3, number)
    assert error.message == f"process 3 was killed ({name})"
    assert hint in error.hint
    assert ("memory runs out" in error.hint) == (number == signal.SIGKILL)
