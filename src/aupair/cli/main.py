"""The command line `aupair`; each command imports its libraries when it runs, so that `--help` is fast."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from aupair import __version__
from aupair.cli import ablation, distill, importing, init, pipeline, predict, registry, synth
from aupair.cli.waiting import Wait
from aupair.disk import disk_errors_named
from aupair.errors import TERMINATED, AupairError, ParamsError, scrub
from aupair.extras import missing_packages_named

app = typer.Typer(
    name="aupair",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Recognise facial Action Units in video by pairwise ranking with learned uncertainty.",
    epilog="Start with `aupair init DIR`, or with `make demo` in the repository, then `aupair flow` and "
    "`aupair predict VIDEO --out predictions`.",
)
app.command(epilog="Examples: `aupair init faces`, `aupair init faces --preset gpu --name faces-2026`")(init.init)
app.add_typer(registry.app, name="registry")
app.add_typer(pipeline.app, name="pipeline")
app.add_typer(importing.app, name="import")
app.command(
    epilog="Examples: `aupair ablate --plan`, `aupair ablate no-pairs uncertainty`, "
    "`aupair ablate --beside ../other/reports/ablation.json`"
)(ablation.ablate)
app.command(
    epilog="Examples: `aupair distill`, `aupair distill --register`, "
    "`aupair distill --set train_pseudo_intensity.network.width=.0625`"
)(distill.distill)
app.command(epilog=synth.EPILOG)(synth.synth)
app.command(epilog=predict.EPILOG)(predict.predict)

NEXT_STEPS = """\
everything on one page    reports/report.html
the main figures          reports/summary.json (`dvc metrics diff` compares)
all figures               reports/table.md, reports/metrics.json
plots                     dvc plots show, reports/plots
checks of the data        reports/data_docs/index.html
runs and curves           mlflow ui --backend-store-uri sqlite:///mlflow.db
registered versions       aupair registry list
promote to champion       aupair registry promote VERSION
recognise AUs in a video  aupair predict VIDEO --out predictions
what each part adds       aupair ablate --plan"""
"""The text below the scores: the result files of the flow, and the commands to run next."""

_INTERRUPTED = 130
"""The exit code of typer after Ctrl-C, for which it prints no message."""

_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)
"""The base class of usage errors; some versions of typer bundle a copy of click, so its own class cannot be imported."""

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"aupair {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples: `aupair run train-mapping --set train_mapping.epochs=3`; a training stage on two GPUs: "
    "`torchrun --standalone --nproc-per-node 2 -m aupair run train-pseudo-intensity`"
)
def run(
    stage: Annotated[str, typer.Argument(help="A stage's name; `aupair flow` lists them.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter of the params file."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(help="Run only this trial, of a stage that runs once for each trial.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="The working folder of the teacher's networks (objective: distill); `aupair distill` sets it.",
        ),
    ] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Annotated[Path, typer.Option(help="The folder that holds data/, work/ and reports/.")] = Path(),
    own_sections: Annotated[
        bool, typer.Option("--own-sections", hidden=True, help="The params file has the sections of this stage alone.")
    ] = False,
    wait: Wait = None,
) -> None:
    """Run one stage of the flow on this machine; a stopped training continues from its last checkpoint."""
    from aupair import stages
    from aupair.console import ConsoleLog
    from aupair.params import load_params, parse_params
    from aupair.record import read_settings
    from aupair.registry.dvc_logging import log_dvc_stage

    # of sections that are not given, none is checked against the others
    settings = (
        parse_params(read_settings(params), str(params)) if own_sections else load_params(params, overrides or ())
    )
    with log_dvc_stage(stages.get_stage(stage), settings, root, trial, ConsoleLog()) as log:
        stages.run_stage(stage, settings, root=root, trial=trial, teacher=teacher, log=log)


@app.command(epilog="Example: `aupair flow`")
def flow(
    params: Annotated[
        Path | None, typer.Option(help="The params file, which decides about the needs; default: params.yaml, if any.")
    ] = None,
) -> None:
    """Show the stages of the flow: the artifacts each reads and writes, its parameters, and the memory and GPUs it needs."""
    from aupair.console import show_table
    from aupair.params import Params, load_params
    from aupair.stage import ARTIFACTS
    from aupair.stages import FLOW, needs_with

    if params is None and Path("params.yaml").is_file():
        params = Path("params.yaml")
    settings = Params() if params is None else load_params(params)
    show_table(
        "The flow",
        ("stage", "reads", "writes", "at", "params", "needs"),
        (
            (
                stage.name + (" *" if stage.per_trial else ""),
                ", ".join(stage.reads),
                "\n".join(stage.writes),
                "\n".join(ARTIFACTS[name] for name in stage.writes),
                ", ".join(stage.sections),
                str(needs_with(stage, settings)),
            )
            for stage in FLOW
        ),
        "* runs once for each trial of params.yaml; {trial} is its number. A GPU speeds a stage up where there is one",
    )


@app.command(epilog="Example: `aupair report`")
def report(
    root: Annotated[Path, typer.Option(help="The folder that holds reports/.")] = Path(),
) -> None:
    """Show the scores of the last evaluation, and the commands to run next."""
    from aupair.console import show_lines
    from aupair.evaluation.summary import read_metrics
    from aupair.report.dvc_plots import write_plot_script
    from aupair.report.tables import headline

    write_plot_script(root)
    show_lines(headline(read_metrics(root / "reports" / "metrics.json")), NEXT_STEPS)


@app.command(epilog="Example: `aupair split data --select .2 --validation .2 --seed 0`")
def split(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    select: Annotated[float, typer.Option(help="Share of the training people that go to select.")] = 0.2,
    validation: Annotated[
        float, typer.Option(help="Share of all people that go to validation, if the data set has no validation set.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed, which decides between equally good splits.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing splits.csv.")] = False,
) -> None:
    """Write splits.csv of a data folder: assign people to splits so that each AU is balanced between them.

    An existing file is not changed.
    """
    from aupair.console import show_table
    from aupair.data.splits import split_data

    summary = split_data(data, select, seed, overwrite, validation)
    header, *rows = summary.table()
    show_table(f"{data / 'splits.csv'}", header, rows)
    for counts in summary.counts:
        if never := [au for au, positives in zip(summary.aus, counts.positives) if not positives]:
            typer.echo(f"never active in {counts.split}: {', '.join(never)}")
    if not summary.written:
        typer.echo("splits.csv exists and was not changed; --overwrite replaces it")
    elif summary.unnamed:
        typer.echo(
            f"{summary.unnamed} videos are not in subjects.csv: each counts as a different person; "
            "if a person is in two splits, the scores are too high"
        )


@app.command(
    epilog="Examples: `aupair submission predictions --out submission`, "
    "`aupair submission predictions --out submission --expected test.csv --form table`"
)
def submission(
    predictions: Annotated[Path, typer.Argument(help="The folder that `aupair predict` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for the competition's files.")],
    expected: Annotated[
        Path | None, typer.Option(metavar="LIST", help="The videos of the competition, and how many frames each has.")
    ] = None,
    form: Annotated[str, typer.Option(help="files: a text file for each video; table: one predictions.txt.")] = "files",
    missing: Annotated[
        str, typer.Option(help="For a video without predictions: error (stop) or zeros (write zeros).")
    ] = "error",
) -> None:
    """Write a competition's files from predictions: 0 or 1 for every frame, also for frames without a face."""
    from aupair.console import ConsoleLog, show_table
    from aupair.inference.submission import write_submission

    rows = write_submission(predictions, out, expected, form=form, missing=missing, log=ConsoleLog())
    changed = [(row.video, row.frames, row.message) for row in rows if row.message]
    if changed:
        show_table("Not as predicted", ("video", "frames", "what was done"), changed)
    typer.echo(f"{len(rows)} videos, {sum(row.frames for row in rows):,} frames: {out}")


def main() -> None:
    """Run the command line and exit.

    A usage error or an AupairError is printed as one line and sets the exit code; other errors print their traceback.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silence ffmpeg: aupair itself reports broken videos
    try:
        with missing_packages_named(), disk_errors_named(), _exhausted_memory_named():
            code = app(standalone_mode=False)
            sys.stdout.flush()
    except AupairError as error:
        print(f"aupair: {scrub(str(error))}", file=sys.stderr)  # a message may quote a URL with a password
        sys.exit(error.exit_code)
    except _UsageError as error:
        print(_usage_text(error), file=sys.stderr)
        sys.exit(ParamsError.exit_code)
    except typer.Abort:
        code = _INTERRUPTED
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        code = TERMINATED
    if code in (_INTERRUPTED, TERMINATED):
        print("aupair: stopped; run it again to continue", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _exhausted_memory_named() -> Iterator[None]:
    """Translate the exceptions of Python, numpy and torch for memory that cannot be allocated.

    Raises:
        AupairError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = (str(error).splitlines() or [""])[0]
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        todo = "lower the settings of batches, widths and numbers of draws, or use a machine with more memory"
        raise AupairError("not enough memory", got=text, todo=todo) from error


def _usage_text(error: Any) -> str:
    """Return one line for a usage error, with a reference to the command's help; or the help text itself, unchanged."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).removesuffix(".")
    return f"aupair: {message}; see `{context.command_path if context else 'aupair'} --help`"
