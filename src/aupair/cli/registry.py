"""The commands `aupair registry`, which list, show, promote and roll back the versions of the registered model."""

import re
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List, promote and roll back the versions of the registered model.")

_MAPPINGS = {"P1": "P1: the mapping with uncertainty", "P2": "P2: the mapping without uncertainty"}
"""The values of the tags `selection.<AU>`; P1 and P2 are also rows of the score table, with another meaning."""

Name = Annotated[
    str, typer.Option(help="The name of the registered model; default: register_model.name in params.yaml.")
]


@app.command("list", epilog="Example: `aupair registry list`")
def _list(name: Name = "") -> None:
    """List the versions with their aliases and scores."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.versions import list_versions

    name = name or project_model_name()
    scores = {
        "score P1 (select)": "score.p1",
        "score P2 (select)": "score.p2",
        "score P2 (validation)": "validation.score.p2",
    }
    versions = list_versions(name)
    if any("score.p2" not in version.tags for version in versions):  # undefined: no frame has all labels
        scores["mean F1 P2 (select)"] = "f1.p2"
    show_table(
        name,
        ("version", "aliases", *scores, "AUs", "with uncertainty", "data"),
        (
            (
                version.number,
                ", ".join(version.aliases),
                *(f"{float(version.tags[tag]):.3f}" if tag in version.tags else "" for tag in scores.values()),
                len(version.aus),
                " ".join(au for au in version.aus if version.tags.get(f"selection.{au}") == "P1"),
                version.tags.get("data.md5", ""),
            )
            for version in versions
        ),
    )


@app.command("show", epilog="Example: `aupair registry show 3`")
def _show(version: Annotated[int, typer.Argument(help="The version's number.")], name: Name = "") -> None:
    """Show a version's tags: the mapping that each AU uses, scores, data."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.versions import get_version

    name = name or project_model_name()
    record = get_version(version, name)
    aliases = f" ({', '.join(record.aliases)})" if record.aliases else ""
    tags = sorted(record.tags.items(), key=_natural_key)
    rows = [(tag, _MAPPINGS.get(value, value) if tag.startswith("selection.") else value) for tag, value in tags]
    show_table(f"{name} version {record.number}{aliases}", ("tag", "value"), rows)


def _natural_key(tag: tuple[str, str]) -> list[str | int]:
    """Return a sort key that compares the numbers in a tag's name as numbers: AU2 comes before AU10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", tag[0])]


@app.command(epilog='Examples: `aupair registry promote 3`, `aupair registry promote 3 --force "new cameras"`')
def promote(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote even if the gate refuses; the reason is recorded.")
    ] = None,
    name: Name = "",
) -> None:
    """Make a version the champion if it passes the gate in mlflow/registry.yaml."""
    from aupair.params import project_model_name
    from aupair.registry.moves import PREVIOUS
    from aupair.registry.promotion import promote_version
    from aupair.registry.versions import list_versions, registry_command

    name = name or project_model_name()
    champion = promote_version(version, force, name=name)
    has_previous = any(PREVIOUS in other.aliases for other in list_versions(name))
    hint = f"; {registry_command('rollback', name)} takes that back" if has_previous else ""
    score = "" if "score.p2" in champion.tags else " (its score is undefined: the gate compares F1)"
    typer.echo(f"version {champion.number} is the champion{score}{hint}")


@app.command(epilog="Example: `aupair registry rollback`")
def rollback(name: Name = "") -> None:
    """Make the previous champion the champion again."""
    from aupair.params import project_model_name
    from aupair.registry.promotion import roll_back

    typer.echo(f"version {roll_back(name or project_model_name()).number} is the champion again")
