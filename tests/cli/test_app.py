import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pexpect
import pytest

import groco_cli
from groco_cli.app import prose

HEAVY = {"torch", "torchvision", "timm", "faiss", "matplotlib", "numpy", "sklearn", "safetensors", "PIL"}


def test_version(run_groco):
    assert run_groco("--version").stdout == f"groco {groco_cli.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_every_installed_command_with_its_help(run_groco, arguments):
    shown = run_groco(*arguments)
    assert (shown.returncode, shown.stderr) == (0, "")
    text = " ".join(shown.stdout.split())
    for entry in entry_points(group="groco.plugins"):
        family, _, member = entry.name.rpartition(".")
        if family:
            assert f" {family} One of " in text
            text_of_family = " ".join(run_groco(family).stdout.split())
            assert f" {member} {entry.load().__doc__.splitlines()[0]}" in text_of_family
        else:
            assert f" {entry.name} {entry.load().__doc__.splitlines()[0]}" in text


def test_help_imports_neither_a_plugin_nor_what_plugins_need():
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "groco_cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "groco_cli.app" in imported
    assert not HEAVY & imported
    assert not {module for module in imported if module.startswith("groco_plugins.")}


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command_is_its_docstring_without_sections(run_groco, flag):
    shown = run_groco("knn", flag)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: groco knn [OPTIONS]")
    assert "Args:" not in shown.stdout
    assert "Raises:" not in shown.stdout


@pytest.mark.parametrize("command", sorted(entry.name for entry in entry_points(group="groco.plugins")))
def test_help_says_what_a_value_is_in_words_and_not_by_its_type(call_groco, command):
    shown = call_groco(*command.split("."), "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Usage: groco {command.replace('.', ' ')} ")
    assert "<" not in shown.stdout


def test_prose_ends_where_the_first_section_begins():
    docstring = """Sort [B, D] embeddings.

    Of these: those.

    Raises:
        GrocoError: Never.
    """
    assert prose(docstring) == "Sort [B, D] embeddings.\n\n    Of these: those."


def test_a_misspelt_command_is_a_usage_error_that_names_the_nearest(run_groco):
    failed = run_groco("knm")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "error: no command 'knm'; did you mean 'knn'?\n"


def test_an_unknown_command_is_a_usage_error_that_says_where_they_are_listed(run_groco):
    failed = run_groco("xyzzy")
    assert failed.returncode == 2
    assert failed.stderr == "error: no command 'xyzzy'; 'groco --help' lists the commands\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verison"], "--version"),
        (["knn", "--no-such-option"], "'groco knn --help'"),
        (["-q"], "Missing command; see 'groco --help'"),
    ],
)
def test_a_usage_error_is_one_line_that_says_where_to_look(run_groco, arguments, said):
    failed = run_groco(*arguments)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert said in failed.stderr


def test_the_console_script_is_the_module():
    script = Path(sys.executable).with_name("groco")
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"groco {groco_cli.__version__}\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected_on_a_terminal(no_color, coloured):
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": no_color}
    command = f"{sys.executable} -m groco_cli xyzzy"
    said, code = pexpect.run(command, env=environment, withexitstatus=True)
    assert code == 2
    assert (b"\x1b[31m" in said) == coloured


def test_ctrl_c_ends_with_130_and_one_line(run_groco, install):
    install("foo-dist", stop="def stop(): raise KeyboardInterrupt")
    stopped = run_groco("stop")
    assert (stopped.returncode, stopped.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize("bug", ["ZeroDivisionError", "EOFError", "BrokenPipeError"])
def test_a_bug_leaves_a_traceback(run_groco, install, bug):
    install("foo-dist", fail=f"def fail(): raise {bug}")
    failed = run_groco("fail")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Traceback")
    assert failed.stderr.splitlines()[-1] == bug


def test_a_mistake_is_one_line_and_with_verbose_says_where(run_groco, install):
    source = "from groco_cli.errors import GrocoError\ndef fail(): raise GrocoError('no such place', 'move')"
    install("foo-dist", fail=source)
    assert run_groco("-q", "fail").stderr == "error: no such place; move\n"
    assert "fail.py" in run_groco("-v", "fail").stderr
    assert run_groco("-v", "fail").returncode == 1


def test_what_a_command_returns_is_no_exit_code(run_groco, install):
    install("foo-dist", count="def count(): return 3")
    assert run_groco("count").returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "--version", "flood"])
def test_a_reader_that_has_gone_ends_it_without_a_word(install, arguments, unbuffered):
    install("foo-dist", flood="def flood(): print('x' * 1_000_000)")
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m groco_cli {arguments} | true; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
    )
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "--version", "flood"])
@pytest.mark.parametrize(("to", "said"), [("> /dev/full", "No space left on device"), (">&-", "stdout is closed")])
def test_a_stdout_that_takes_nothing_is_told_in_one_line(install, arguments, unbuffered, to, said):
    install("foo-dist", flood="def flood(): print('x' * 1_000_000)")
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m groco_cli {arguments} {to}"],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


INTERRUPTED = """
import signal
from pathlib import Path
from groco_cli import console
from groco_cli.files import atomic_write

def interrupted():
    try:
        {body}
    finally:
        print("tidied up")
"""
SLOW = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt as error:
    raise ValueError("not for me") from error
"""


@pytest.mark.parametrize(
    ("body", "code", "last", "printed"),
    [
        ("import foo_dist.slow", 130, "error: interrupted", ""),
        ("signal.raise_signal(signal.SIGINT)", 130, "error: interrupted", "tidied up\n"),
        ("with console.Bar('work', 1): import foo_dist.slow", 1, "ValueError: not for me", "tidied up\n"),
        ("with atomic_write(Path('a')): import foo_dist.slow", 1, "ValueError: not for me", "tidied up\n"),
    ],
    ids=["importing", "working", "importing under a bar", "importing while a file is written"],
)
def test_ctrl_c_ends_an_import_at_once_where_nothing_has_to_be_tidied_up(
    run_groco, install, tmp_path, monkeypatch, body, code, last, printed
):
    install("foo-dist", interrupted=INTERRUPTED.format(body=body), slow=SLOW)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = run_groco("interrupted")
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()[-1]) == (code, printed, last)
    assert code == 1 or ended.stderr == f"{last}\n"
    assert list(Path().iterdir()) == []


def test_ctrl_c_that_is_ignored_stays_so(install):
    install("foo-dist", interrupted=INTERRUPTED.format(body="import foo_dist.slow"), slow=SLOW)
    command = f"trap '' INT; {sys.executable} -m groco_cli interrupted"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "tidied up\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_a_script_for_each_shell(run_groco, shell):
    script = run_groco(_GROCO_COMPLETE=f"source_{shell}")
    assert script.returncode == 0
    assert "_GROCO_COMPLETE" in script.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("groco kn", "knn"),
        ("groco --vers", "--version"),
        ("groco knn --hel", "--help"),
        ("groco xyzzy --", ""),
    ],
)
def test_completion_offers_commands_and_their_options(run_groco, typed, offered):
    completed = run_groco(_GROCO_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    assert completed.stdout.split() == offered.split()
    assert completed.stderr == ""
