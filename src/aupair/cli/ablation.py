"""The command `aupair ablate`, which lists the rows of the ablation study, or runs and reports them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aupair.errors import ArtifactError, ParamsError, RunFailedError

if TYPE_CHECKING:
    from aupair.params import Params

Rows = Annotated[list[str] | None, typer.Argument(help="Rows or groups, as `--plan` lists them; default: all.")]


def ablate(
    rows: Rows = None,
    plan: Annotated[bool, typer.Option("--plan", help="List the rows and what they change; run nothing.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter in all rows.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The ablation.json of another corpus, with which the ranking of rows is compared."
        ),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Log the rows to MLflow.")] = True,
    params: Annotated[Path, typer.Option("--params", help="The params file.")] = Path("params.yaml"),
) -> None:
    """Run the flow again with each of its parts left out or replaced, and compare the scores.

    Rows run in work/variants. A stopped command continues where it stopped.
    """
    from aupair.ablation.ablate import run_ablation
    from aupair.console import ConsoleLog
    from aupair.params import load_params

    base, log = load_params(params, overrides or ()), ConsoleLog()
    if plan:
        _show_rows(base, rows or ())
        return
    other = _read_other(beside)
    results = run_ablation(Path(), base, rows or (), log)
    tree = _report(base, results, other)
    if mlflow:
        from aupair.registry.ablation import log_ablation

        reports = tuple(Path("reports") / f"ablation.{suffix}" for suffix in ("html", "md", "json"))
        log.line(f"MLflow: run {log_ablation(tree, reports, base.register_model.experiment)}")
    failed = [row["name"] for row in results if row["state"] == "failed"]
    if failed:
        raise RunFailedError("some rows failed", got=", ".join(failed), todo="see work/variants/logs")


def _show_rows(base: "Params", names: list[str] | tuple[()]) -> None:
    """Print the rows, each with the settings that it changes, or the reason why it does not apply."""
    from aupair.ablation.ablate import changed_settings, count_aus
    from aupair.ablation.rows import select_rows
    from aupair.console import show_table

    lines, aus = [], count_aus(Path(), base)
    for row in select_rows(names):
        why = row.why_unfit(base, aus)
        settings = {} if why else changed_settings(base, row.params(base, aus))
        changes = f"left out: {why}" if why else "\n".join(f"{key}: {value}" for key, value in settings.items())
        lines.append((row.name, row.group, row.text, row.rule, changes))
    note = "rows with the same changes share a run"
    show_table("The ablation", ("row", "group", "what it shows", "decision rule", "changes"), lines, note)


def _report(base: "Params", results: list[dict[str, Any]], other: dict[str, Any] | None) -> dict[str, Any]:
    """Write the reports, print the table, and return the tree of ablation.json."""
    from aupair import stages
    from aupair.ablation import report
    from aupair.ablation.ablate import tracked_data_hash
    from aupair.ablation.workspace import count_threads
    from aupair.console import show_table

    note = stages.synthetic_note(Path("data"))
    about = {"note": note, "data": tracked_data_hash(Path()), "threads": count_threads()}
    tree = report.build_report(results, about, base.evaluate.bootstrap, base.evaluate.seed)
    if other is not None:
        tree["beside"] = report.compare_corpora(tree, other)
    report.write_report(Path("reports"), tree)
    table = report.brief_table(tree)
    show_table(table.caption, table.head, table.rows, note)
    for row in results:
        if row["state"] != "scored":
            typer.echo(f"{row['name']}: {row['state']}: {row['why']}")
    typer.echo("reports/ablation.html, reports/ablation.md, reports/ablation.json")
    return tree


def _read_other(path: Path | None) -> dict[str, Any] | None:
    """Read another corpus's ablation.json, before rows run for hours, so that a wrong file is reported at once."""
    from aupair import store
    from aupair.ablation import report

    if path is None:
        return None
    wrong = ParamsError(
        "--beside is not a report of an ablation", got=path, expected="an ablation.json that `aupair ablate` wrote"
    )
    try:
        tree: dict[str, Any] = store.read_json(path)
        report.compare_corpora(tree, tree)
    except (ArtifactError, KeyError, TypeError, AttributeError) as error:
        raise wrong from error
    return tree
