import pytest

from groco_cli.plugins import Plugin, find_plugins

HELLO = '''
    import sys
    from typing import Annotated

    import typer

    print("imported", file=sys.stderr)

    def hello(name: Annotated[str, typer.Option(help="Who is greeted.")] = "world") -> None:
        """Greet someone [or_something].

        Args:
            name: Not shown.
        """
        print(f"hello {name}")
'''
BROKEN = '''
    import no_such_module

    def broken() -> None:
        """Do nothing."""
'''


def test_a_third_party_adds_a_command_with_a_function_and_a_line(run_groco, install):
    install("foo-dist", hello=HELLO)
    shown = run_groco("--help")
    assert "hello     Greet someone [or_something].\n" in shown.stdout
    assert shown.stderr == ""
    assert run_groco("hello", "--name", "you").stdout == "hello you\n"
    assert "Who is greeted." in run_groco("hello", "--help").stdout


def test_a_broken_command_stays_listed_and_fails_alone(run_groco, install):
    install("foo-dist", broken=BROKEN, hello=HELLO)
    assert "broken    Do nothing.\n" in run_groco("--help").stdout
    assert run_groco("hello").stdout == "hello world\n"
    failed = run_groco("broken")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        "error: 'broken' cannot be loaded from foo-dist 1.0: "
        "ModuleNotFoundError: No module named 'no_such_module'; 'groco -v broken' shows where\n"
    )
    assert "broken.py" in run_groco("-v", "broken").stderr


def test_a_built_in_command_cannot_be_replaced(run_groco, install):
    install("a-dist", knn='def knn():\n    """Mine."""')
    shown = run_groco("knn", "--help")
    assert shown.returncode == 0
    assert "Mine." not in shown.stdout + run_groco("--help").stdout
    assert shown.stderr == ("warning: the command 'knn' of a-dist 1.0 is ignored: groco 0.1.0 has one of that name\n")


def test_a_dot_makes_a_family_of_commands(run_groco, install):
    greet = 'def {0}() -> None:\n    """Greet {0}."""\n    print("{0}")\n'
    install("foo-dist", **{"greet.you": greet.format("you"), "greet.all": greet.format("all")})
    assert "greet     One of you, all.\n" in run_groco("--help").stdout
    listed = run_groco("greet")
    assert (listed.returncode, "you  Greet you.\n" in listed.stdout) == (0, True)
    assert run_groco("greet", "you").stdout == "you\n"
    failed = run_groco("greet", "me")
    assert failed.returncode == 2
    assert failed.stderr == "error: no command 'me'; 'groco greet --help' lists the commands\n"
    assert "Usage: groco greet all" in run_groco("greet", "all", "--help").stdout


def test_a_third_party_takes_no_family_s_name_and_makes_none_of_a_command(run_groco, install):
    install("foo-dist", bench='def bench():\n    """Mine."""', **{"toy.mine": 'def mine():\n    """Mine."""'})
    shown = run_groco("--help").stdout
    assert "Mine." not in shown
    assert "bench     One of data, loss, train.\n" in shown
    assert "data   Measure" in run_groco("bench").stdout
    assert "--plot" in run_groco("toy", "--help").stdout


def test_of_two_third_parties_the_first_by_name_has_the_command(run_groco, install):
    install("foo-dist", hello="def hello(): print('foo')")
    install("bar-dist", hello="def hello(): print('bar')")
    assert [plugin.distribution for plugin in find_plugins()["hello"]] == ["bar-dist", "foo-dist"]
    greeted = run_groco("hello")
    assert greeted.stdout == "bar\n"
    assert "foo-dist 1.0 is ignored" in greeted.stderr


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("def f() return", "SyntaxError: expected ':' (f.py, line 1)"),
        ("g = 1", "AttributeError: module 'foo_dist.f' has no attribute 'f'"),
        ("def f(x: 'Absent'): ...", "NameError: name 'Absent' is not defined"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_whatever_an_import_does_is_one_line_that_names_the_package(run_groco, install, source, cause):
    install("foo-dist", f=source)
    failed = run_groco("f")
    assert failed.returncode == 1
    assert failed.stderr == (f"error: 'f' cannot be loaded from foo-dist 1.0: {cause}; 'groco -v f' shows where\n")


def test_help_is_read_without_importing_the_packages_above(install, tmp_path):
    install("foo-dist", f='def f():\n    """The first line.\n\n    The third."""')
    (tmp_path / "foo_dist" / "__init__.py").write_text("raise RuntimeError")
    assert find_plugins()["f"][0].help == "The first line."


@pytest.mark.parametrize(
    ("target", "help_line"),
    [
        ("foo_dist.f:f", ""),
        ("foo_dist.f:absent", ""),
        ("foo_dist.gone:f", "(cannot be read: ModuleNotFoundError: No module named 'foo_dist.gone')"),
        ("foo_dist.f.below:f", "(cannot be read: ModuleNotFoundError: No module named 'foo_dist.f.below')"),
        ("gone.f:f", "(cannot be read: ModuleNotFoundError: No module named 'gone.f')"),
    ],
)
def test_help_that_is_not_there(install, target, help_line):
    install("foo-dist", f="def f(): pass")
    assert Plugin("f", target, "foo-dist", "1.0").help == help_line
