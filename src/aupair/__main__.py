"""`python -m aupair` is `aupair`; torchrun starts it so."""

from aupair.cli.main import main

if __name__ == "__main__":
    main()
