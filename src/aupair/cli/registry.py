"""`aupair registry`: the versions of the registered model."""

import re
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at and move the versions of the registered model.")

Name = Annotated[str, typer.Option(help="The registered model: register_model.name of params.yaml.")]


@app.command("list", epilog="Example: `aupair registry list`")
def list_command(name: Name = "aupair") -> None:
    """List the versions, their scores and aliases."""
    from aupair.aus import AUS
    from aupair.console import show_table
    from aupair.registry.versions import list_versions

    scores = {
        "score P1 (select)": "score.p1",
        "score P2 (select)": "score.p2",
        "score P2 (validation)": "validation.score.p2",
    }
    show_table(
        name,
        ("version", "aliases", *scores, "with uncertainty", "data"),
        (
            (
                version.number,
                ", ".join(version.aliases),
                *(f"{float(version.tags[tag]):.3f}" if tag in version.tags else "" for tag in scores.values()),
                " ".join(au for au in AUS if version.tags.get(f"selection.{au}") == "P1"),
                version.tags.get("data.md5", ""),
            )
            for version in list_versions(name)
        ),
    )


@app.command("show", epilog="Example: `aupair registry show 3`")
def show_version(version: Annotated[int, typer.Argument(help="Its number.")], name: Name = "aupair") -> None:
    """Show a version's tags: the mapping of each AU (P1: with uncertainty, P2: without), scores, data."""
    from aupair.console import show_table
    from aupair.registry.versions import get_version

    found = get_version(version, name)
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    tags = sorted(found.tags.items(), key=_natural)
    show_table(f"{name} version {found.number}{aliases}", ("tag", "value"), tags)


def _natural(tag: tuple[str, str]) -> list[str | int]:
    """Sort tags by name, numbers in it by value: AU2 stands before AU10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", tag[0])]


@app.command(epilog='Examples: `aupair registry promote 3`, `aupair registry promote 3 --force "new cameras"`')
def promote(
    version: Annotated[int, typer.Argument(help="Its number.")],
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote although the gate refuses; recorded.")
    ] = None,
    name: Name = "aupair",
) -> None:
    """Make a version the champion, if the gate in mlflow/registry.yaml lets it."""
    from aupair.registry.versions import PREVIOUS, list_versions, promote_version, registry_command

    found = promote_version(version, force, name=name)
    back = any(PREVIOUS in other.aliases for other in list_versions(name))
    more = f"; {registry_command('rollback', name)} takes that back" if back else ""
    typer.echo(f"version {found.number} is the champion{more}")


@app.command(epilog="Example: `aupair registry rollback`")
def rollback(name: Name = "aupair") -> None:
    """Give the champion's place back to the previous one."""
    from aupair.registry.versions import roll_back

    typer.echo(f"version {roll_back(name).number} is the champion again")
