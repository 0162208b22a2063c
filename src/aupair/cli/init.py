"""The command `aupair init`, which creates a project folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; created if it does not exist.")],
    preset: Annotated[
        Literal["laptop", "gpu", "paper"],
        typer.Option(
            help="The settings in params.yaml: small networks, VGG16 for a GPU, or the settings of the paper."
        ),
    ] = "laptop",
    name: Annotated[
        str, typer.Option(help="The name of the registered model and of the experiment; default: the folder's name.")
    ] = "",
    git: Annotated[bool, typer.Option(help="Set up git, unless the folder is in a git repository already.")] = True,
) -> None:
    """Create a project for your own videos: settings, stages, data folder, promotion gate, git and DVC.

    No existing file is replaced.
    """
    from aupair.project import create_project

    name = create_project(folder, preset, name, git)
    typer.echo(f"{folder}: created a project with the model {name}; read {folder / 'data' / 'README.md'} next")
