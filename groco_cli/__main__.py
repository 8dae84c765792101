"""The command `groco`, which is also `python -m groco_cli`: Ctrl-C is heard before anything that takes its time."""

from groco_cli.early_interrupt import end_imports_at_once


def main() -> None:
    """The console script `groco`."""
    end_imports_at_once()
    from groco_cli import app

    app.main()


if __name__ == "__main__":
    main()
