"""`aupair ablate`: plan, run and report the ablation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aupair.errors import ArtifactError, ParamsError, RunFailedError

if TYPE_CHECKING:
    from aupair.ablation.ablate import Ablation

UNKNOWN = ", and what is unknown: run the flow once, then it is measured"
Rows = Annotated[list[str] | None, typer.Argument(help="Rows or groups, as `--plan` lists them; all without any.")]


def ablate(
    rows: Rows = None,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="Run what fits; the rows that come first, first.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the rows, what they cost and what fits; run nothing.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter in all rows.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The ablation.json of another corpus: are its rows in this order?"),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Log the rows into MLflow.")] = True,
    params: Annotated[Path, typer.Option("--params", help="The params file.")] = Path("params.yaml"),
) -> None:
    """Run the flow again without each of its parts, and with other ones, and set the scores side by side."""
    from aupair.ablation.ablate import Ablation
    from aupair.console import ConsoleLog
    from aupair.params import load_params

    base, log = load_params(params, overrides or ()), ConsoleLog()
    ablation = Ablation.of(Path(), base, rows or ())
    seconds = None if budget is None else 60 * budget
    if plan:
        _show_plan(ablation, seconds)
        return
    other = _read_other(beside)
    found = ablation.run(seconds, log)
    tree = _report(ablation, found, other)
    if mlflow:
        from aupair.registry.ablation import log_ablation

        reports = tuple(Path("reports") / f"ablation.{suffix}" for suffix in ("html", "md", "json"))
        log.line(f"MLflow: run {log_ablation(tree, reports, base.register_model.experiment)}")
    failed = [row["name"] for row in found if row["state"] == "failed"]
    if failed:
        raise RunFailedError("rows that failed", got=", ".join(failed), todo="see work/ablation/logs")


def _show_plan(ablation: "Ablation", budget: float | None) -> None:
    """Print the runs in order: their rows, what is known of them, what is left to do, whether it fits."""
    from aupair.ablation.ablate import duration
    from aupair.console import show_table

    lines, total, unknown = [], 0.0, False
    for one in ablation.plan(budget):
        total += (one.seconds or 0.0) if one.fits else 0.0
        unknown |= one.seconds is None
        for k, row in enumerate(one.rows):
            done = ablation.judged(row) is not None
            cost = "" if k else "unknown" if one.seconds is None else duration(one.seconds)
            state = "judged" if done else "fits" if one.fits else "left out"
            lines.append((row.name, row.group, row.text, row.judged, cost, state))
    limit = "" if budget is None else f" of {duration(budget)}"
    show_table(
        "The ablation",
        ("row", "group", "what it is", "judged", "to do", "state"),
        lines,
        f"together about {duration(total)}{limit}{UNKNOWN if unknown else ''}; rows with an empty cost share the run above",
    )


def _report(ablation: "Ablation", found: list[dict[str, Any]], other: dict[str, Any] | None) -> dict[str, Any]:
    """Write the reports and print the table; give the tree of ablation.json."""
    from aupair import stages
    from aupair.ablation import report
    from aupair.console import show_table

    params = ablation.base.evaluate
    note = stages.note(ablation.home / "data") or stages.note(ablation.workspace.root / "data")
    tree = report.make(found, {"note": note, "data": ablation.data}, params.bootstrap, params.seed)
    if other is not None:
        tree["beside"] = report.beside(tree, other)
    report.write(ablation.home / "reports", tree)
    table = report.brief(tree)
    show_table(table.caption, table.head, table.rows, note)
    for row in found:
        if row["state"] != "judged":
            typer.echo(f"{row['name']}: {row['state']}: {row['why']}")
    typer.echo("reports/ablation.html, reports/ablation.md, reports/ablation.json")
    return tree


def _read_other(path: Path | None) -> dict[str, Any] | None:
    """Read another corpus's ablation.json before hours of work, not after."""
    from aupair import store
    from aupair.ablation import report

    if path is None:
        return None
    wrong = ParamsError("--beside", got=path, expected="an ablation.json that `aupair ablate` wrote")
    try:
        tree: dict[str, Any] = store.read_json(path)
        report.beside(tree, tree)
    except (ArtifactError, KeyError, TypeError, AttributeError) as error:
        raise wrong from error
    return tree
