"""The commands `aupair registry`, which list, show, promote and roll back the versions of the registered model."""

from typing import Annotated

import typer

from aupair.cli.waiting import Wait

app = typer.Typer(no_args_is_help=True, help="List, promote and roll back the versions of the registered model.")

_MAPPINGS = {"P1": "P1: the mapping with uncertainty", "P2": "P2: the mapping without uncertainty"}
"""The values of the tags `selection.<AU>`; as rows of the score table, P1 and P2 have another meaning."""

_AU_TAGS = (("f1", ""), ("selection", ""), ("selection", ".difference"), ("selection", ".probability"))
"""The prefixes and suffixes of the tags of an AU."""

_MEAN_F1 = {"select": "f1.p2", "validation": "validation.f1.p2"}
"""The tags with the mean F1 of a version on each split."""

Name = Annotated[
    str, typer.Option(help="The name of the registered model; default: register_model.name in params.yaml.")
]


@app.command("list", epilog="Example: `aupair registry list`")
def _list(name: Name = "", wait: Wait = None) -> None:
    """List the versions: aliases, date, author, run, mean F1, network, number of AUs. `registry show` has the rest."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.comparison import read_authors
    from aupair.registry.versions import list_versions

    name = name or project_model_name()
    versions = list_versions(name)
    authors = read_authors(versions)
    show_table(
        name,
        ("version", "aliases", "registered", "author", "run", "mean F1\n(select /\nvalidation)", "network", "AUs"),
        (
            (
                version.number,
                ", ".join(version.aliases),
                f"{version.created:%Y-%m-%d}",
                authors[version.number],
                version.run_id[:8],
                " / ".join(f"{float(version.tags[tag]):.3f}" for tag in _MEAN_F1.values() if tag in version.tags),
                version.network,
                len(version.aus),
            )
            for version in versions
        ),
    )


@app.command("show", epilog="Example: `aupair registry show 3`")
def _show(
    version: Annotated[int, typer.Argument(help="The version's number.")], name: Name = "", wait: Wait = None
) -> None:
    """Show a version: date, author, run, network, and its tags: the mapping that each AU uses, scores, data."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.comparison import read_authors
    from aupair.registry.tags import NETWORK
    from aupair.registry.versions import get_version

    name = name or project_model_name()
    record = get_version(version, name)
    aliases = f" ({', '.join(record.aliases)})" if record.aliases else ""
    facts = [
        ("registered", f"{record.created:%Y-%m-%d %H:%M} UTC"),
        ("author", read_authors([record])[version]),
        ("run", record.run_id),
        ("network", record.network),
        *((f"mean F1 ({split})", record.tags.get(tag, "")) for split, tag in _MEAN_F1.items()),
    ]
    au_tags = {f"{prefix}.{au}{suffix}" for au in record.aus for prefix, suffix in _AU_TAGS}
    others = [(tag, value) for tag, value in sorted(record.tags.items()) if tag not in au_tags | {NETWORK}]
    show_table(f"{name} version {record.number}{aliases}", ("tag", "value"), facts + others)
    au_rows = [[record.tags.get(f"{prefix}.{au}{suffix}", "") for prefix, suffix in _AU_TAGS] for au in record.aus]
    show_table(
        "AUs, on select",
        ("AU", "F1", "mapping", "gain of the uncertainty", "P(gain > 0)"),
        ((au, f1, _MAPPINGS.get(use, use), *gain) for au, (f1, use, *gain) in zip(record.aus, au_rows)),
    )


@app.command(epilog="Example: `aupair registry history`")
def history(name: Name = "", wait: Wait = None) -> None:
    """List the changes of the champion, with time, user, reason and evidence."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.comparison import list_changes

    name = name or project_model_name()
    show_table(
        name,
        ("when (UTC)", "change", "instead of", "by", "why", "evidence", "state"),
        (
            (
                move.at,
                f"{move.verb} {move.version}",
                move.champion or "",
                move.by,
                move.reason + (f" (forced; the gate refused: {move.refusals})" if move.refusals else ""),
                move.evidence,
                {"done": "", "overtaken": "overtaken by another change"}.get(move.state, "not completed yet"),
            )
            for move in list_changes(name)
        ),
    )


@app.command(epilog="Example: `aupair registry diff 1 2`")
def diff(
    first: Annotated[int, typer.Argument(help="The number of the first version.")],
    second: Annotated[int, typer.Argument(help="The number of the second version.")],
    name: Name = "",
    wait: Wait = None,
) -> None:
    """Show the differences between two versions: choices, scores, data, params, and decisions on the same people."""
    from aupair.console import show_table
    from aupair.params import project_model_name
    from aupair.registry.comparison import diff_versions

    name = name or project_model_name()
    rows, text = diff_versions(first, second, name)
    show_table(name, ("", f"version {first}", f"version {second}"), rows)
    typer.echo(text)


@app.command(epilog='Examples: `aupair registry promote 3 --reason "more people"`, `... --force "new cameras"`')
def promote(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote even if the gate refuses; the reason is recorded.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="REASON", help="The reason to record.")] = "",
    name: Name = "",
    wait: Wait = None,
) -> None:
    """Make a version the champion if it passes the gate in mlflow/registry.yaml."""
    from aupair.params import project_model_name
    from aupair.registry.moves import PREVIOUS
    from aupair.registry.promotion import promote_version
    from aupair.registry.versions import list_versions, registry_command

    name = name or project_model_name()
    champion = promote_version(version, force, name=name, reason=reason)
    has_previous = any(PREVIOUS in other.aliases for other in list_versions(name))
    evidence = (
        f": {champion.tags['promotion.evidence']}" if has_previous and "promotion.evidence" in champion.tags else ""
    )
    hint = f"; {registry_command('rollback', name)} undoes this" if has_previous else ""
    typer.echo(f"version {champion.number} is the champion{evidence}{hint}")


@app.command(epilog='Example: `aupair registry rollback --reason "wrong on the new cameras"`')
def rollback(
    reason: Annotated[str, typer.Option(metavar="REASON", help="The reason to record.")] = "",
    name: Name = "",
    wait: Wait = None,
) -> None:
    """Make the previous champion the champion again."""
    from aupair.params import project_model_name
    from aupair.registry.promotion import roll_back

    typer.echo(f"version {roll_back(name or project_model_name(), reason).number} is the champion again")
