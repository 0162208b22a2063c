"""The command line as `python -m aupair`, which is how torchrun starts it."""

from aupair.cli.main import main

if __name__ == "__main__":
    main()
