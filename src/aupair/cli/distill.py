"""The command `aupair distill`, which trains a student and compares it with its teacher."""

from pathlib import Path
from typing import Annotated

import typer

from aupair.cli.waiting import Wait


def distill(
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter of the student."),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the student as a version (`challenger`).")
    ] = False,
    params: Annotated[Path, typer.Option("--params", help="The params file of the teacher.")] = Path("params.yaml"),
    wait: Wait = None,
) -> None:
    """Train a small network (the student) on the outputs of the last run's f and h (the teacher), and evaluate it.

    The student is trained in work/variants; its reports are copied to reports/student. The teacher's files and reports
    are not changed. A stopped command continues where it stopped.
    """
    from aupair.ablation.student import REPORTS, Distillation
    from aupair.console import ConsoleLog, show_table
    from aupair.params import load_params

    distillation = Distillation.from_project(Path(), load_params(params), overrides or ())
    figures = distillation.run(register, ConsoleLog())
    head = ("", "parameters", "GMAC a frame", "mean F1 select", "mean F1 validation", "scored frames/s")
    note = f"{_describe_loss(**figures)}; reports of the student: {REPORTS}"
    show_table("Teacher and student", head, ((name, *_cells(row)) for name, row in figures.items()), note)


def _describe_loss(teacher: dict[str, float | None], student: dict[str, float | None]) -> str:
    """Return the student's cost, speed and loss of F1 as text; an F1 is missing where evaluate has not run."""
    cost, speed = (student[key] / teacher[key] for key in ("gmac_per_frame", "frames_per_second"))  # type: ignore[operator]
    savings = f"the student takes {cost:.0%} of the multiplications and is {speed:.1f} times as fast"
    if teacher["f1_validation"] is None or student["f1_validation"] is None:
        return savings
    difference = student["f1_validation"] - teacher["f1_validation"]
    return f"{savings}; its mean F1 on validation differs by {difference:+.3f}"


def _cells(row: dict[str, float | None]) -> list[str]:
    """Return the cells of a row; an unknown F1 is empty."""
    f1 = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("f1_select", "f1_validation")]
    return [f"{row['parameters']:,}", f"{row['gmac_per_frame']:.4f}", *f1, f"{row['frames_per_second']:.0f}"]
