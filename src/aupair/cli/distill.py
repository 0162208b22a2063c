"""`aupair distill`: teach a student, and set it beside its teacher."""

from pathlib import Path
from typing import Annotated

import typer


def distill(
    trial: Annotated[int | None, typer.Option(help="The teacher; else the trial that evaluate chose.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter of the student."),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the student as a version (`challenger`).")
    ] = False,
    params: Annotated[Path, typer.Option("--params", help="The params file of the teacher.")] = Path("params.yaml"),
    root: Annotated[Path, typer.Option(help="The folder that holds data/, work/ and reports/.")] = Path(),
) -> None:
    """Teach a small network (a student) what a finished trial's f and h say, and run the rest of the flow with it.

    The student is made in work/student, which looks like the folder above it; the teacher's files are left alone.
    Stopped, it goes on where it was.
    """
    from aupair.console import ConsoleLog, show_table
    from aupair.params import load_params
    from aupair.student import Distillation

    log = ConsoleLog()
    distillation = Distillation.of(root, load_params(params), trial, overrides or ())
    distillation.run(log)
    if register:
        distillation.register(log)
    figures = distillation.compare()
    head = ("", "parameters", "GMAC a frame", "mean F1 select", "mean F1 validation", "scored frames/s")
    note = f"reports of the student: {distillation.root / 'reports'}; `aupair report --root {distillation.root}`"
    show_table("Teacher and student", head, ((name, *_cells(one)) for name, one in figures.items()), note)


def _cells(one: dict[str, float | None]) -> list[str]:
    """Give a row's figures as texts; what was not judged is empty."""
    f1 = ["" if one[key] is None else f"{one[key]:.3f}" for key in ("f1_select", "f1_validation")]
    return [f"{one['parameters']:,}", f"{one['gmac_per_frame']:.4f}", *f1, f"{one['frames_per_second']:.0f}"]
