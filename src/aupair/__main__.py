"""The entry point of `python -m aupair`, by which torchrun starts the command line."""

from aupair.cli.main import main

if __name__ == "__main__":
    main()
