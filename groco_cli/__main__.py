"""`python -m groco_cli` is `groco`."""

from groco_cli.app import main

if __name__ == "__main__":
    main()
