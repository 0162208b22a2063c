"""The command line: `aupair --help`."""
