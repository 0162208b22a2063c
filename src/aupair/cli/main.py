"""The command line: `aupair --help`. Each command imports what it needs when it runs, so that help is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aupair import __version__
from aupair.cli import ablation, distill, pipeline, registry
from aupair.errors import AupairError

app = typer.Typer(
    name="aupair",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Recognise facial Action Units in video by pairwise ranking with learned uncertainty.",
    epilog="Start with `make demo`, then `aupair flow` and `aupair predict VIDEO --out predictions`.",
)
app.add_typer(registry.app, name="registry")
app.add_typer(pipeline.app, name="pipeline")
app.command(
    epilog="Examples: `aupair ablate --plan`, `aupair ablate no-pairs uncertainty`, "
    "`aupair ablate --beside ../other/reports/ablation.json`"
)(ablation.ablate)
app.command(
    epilog="Examples: `aupair distill`, `aupair distill --trial 1 --register`, "
    "`aupair distill --set train_pseudo_intensity.network.width=.0625`"
)(distill.distill)

NEXT = """\
all of it on one page     reports/report.html
all figures               reports/table.md, reports/metrics.json
pictures                  reports/plots
the data's checks         reports/data_docs/index.html
runs and curves           mlflow ui --backend-store-uri sqlite:///mlflow.db
registered versions       aupair registry list
make one the champion     aupair registry promote VERSION
use it                    aupair predict VIDEO --out predictions
does each part pay?       aupair ablate --plan"""
"""Where to look after a flow."""

STOPPED = 130
"""The exit code that typer makes of Ctrl-C, without a word."""

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"aupair {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
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
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Only this trial (of a stage that runs once a trial).")] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="The trial's folder to learn from (objective: distill); `aupair distill` sets it."
        ),
    ] = None,
    params: ParamsFile = Path("params.yaml"),
    root: Annotated[Path, typer.Option(help="The folder that holds data/, work/ and reports/.")] = Path(),
) -> None:
    """Run one stage of the flow on this machine; training that was stopped goes on from its last checkpoint."""
    from aupair import stages
    from aupair.console import ConsoleLog
    from aupair.params import load_params

    stages.run(stage, load_params(params, overrides or ()), root=root, trial=trial, teacher=teacher, log=ConsoleLog())


@app.command(epilog="Example: `aupair flow`")
def flow() -> None:
    """Show the stages: what each reads, writes and needs."""
    from aupair.console import show_table
    from aupair.stage import ARTIFACTS
    from aupair.stages import FLOW

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
                f"{stage.needs.memory} GiB" + (f", {stage.needs.gpus} GPU" if stage.needs.gpus else ""),
            )
            for stage in FLOW
        ),
        "* runs once for each trial of params.yaml; {trial} is its number",
    )


@app.command(epilog="Example: `aupair report`")
def report(
    root: Annotated[Path, typer.Option(help="The folder that holds reports/.")] = Path(),
) -> None:
    """Show the scores of the last evaluation, and where to look next."""
    from aupair.console import show_lines
    from aupair.report.tables import headline
    from aupair.store import read_json

    show_lines(headline(read_json(root / "reports" / "metrics.json")), NEXT)


@app.command(epilog="Example: `aupair synth data --subjects 24 --clips 1 --seconds 5 --seed 0`")
def synth(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    subjects: Annotated[
        int, typer.Option(min=4, max=999, help="Persons; half fit, a quarter select, a quarter validation.")
    ] = 96,
    clips: Annotated[int, typer.Option(min=1, max=9, help="Videos a person.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a video.")] = 6.5,
    fps: Annotated[float, typer.Option(min=5, max=60, help="Frames a second.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other people.")] = 0,
) -> None:
    """Write a synthetic corpus in Aff-Wild2's layout (videos, annotations, subjects, splits, conditions)."""
    from aupair.console import ConsoleLog
    from aupair.synth.corpus import Corpus, synthesise

    synthesise(directory, Corpus(subjects=subjects, clips=clips, seconds=seconds, fps=fps, seed=seed), ConsoleLog())


@app.command(epilog="Example: `aupair split data --select .2 --seed 0`")
def split(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    select: Annotated[float, typer.Option(help="Share of the training people kept for choices.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of ties.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Draw again although splits.csv exists.")] = False,
) -> None:
    """Write data/splits.csv by person, balanced over AUs; a file that is there already wins."""
    from aupair.console import show_table
    from aupair.data.splits import split_data

    summary = split_data(data, select, seed, overwrite)
    show_table(f"{data / 'splits.csv'}", summary.HEADER, summary.rows())
    if not summary.written:
        typer.echo("splits.csv is there already: kept (--overwrite draws again)")


@app.command(
    epilog="Examples: `aupair predict clip.mp4 --out predictions`, `aupair predict recordings --out predictions --abstain .2`"
)
def predict(
    sources: Annotated[list[Path], typer.Argument(help="Videos, or folders of videos.")],
    out: Annotated[Path, typer.Option(help="Where a CSV and a timeline go for each video.")],
    model: Annotated[
        str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION or a bundle's folder.")
    ] = "models:/aupair@champion",
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 ...")] = "auto",
    abstain: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="Q",
            help="Leave out the least confident share of each AU's active and inactive decisions.",
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="C", help="Keep this share of the decisions: the same as --abstain 1-C."),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="R",
            help="Leave out as few decisions as keep the share of wrong ones, with 95 % confidence, at R.",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="video,subject: whose clips share a neutral face (extract_features.neutral: person)."
        ),
    ] = None,
) -> None:
    """Recognise AUs in videos: a row for every frame, with uncertainty and confidence."""
    from aupair.api import Recognizer
    from aupair.console import ConsoleLog
    from aupair.inference.predict import choose_abstain_share, find_videos, predict_videos

    videos = find_videos(sources)
    recognizer, log = Recognizer.load(model, device), ConsoleLog()
    share = choose_abstain_share(recognizer, abstain, coverage, risk, log)
    predict_videos(videos, recognizer, out, share, log, subjects)


@app.command(
    epilog="Examples: `aupair submission predictions --out submission`, "
    "`aupair submission predictions --out submission --expected test.csv --form table`"
)
def submission(
    predictions: Annotated[Path, typer.Argument(help="The folder that `aupair predict` wrote.")],
    out: Annotated[Path, typer.Option(help="Where the competition's files go.")],
    expected: Annotated[
        Path | None, typer.Option(metavar="LIST", help="The release's videos and their numbers of frames.")
    ] = None,
    form: Annotated[str, typer.Option(help="files: a text file a video; table: one predictions.txt.")] = "files",
    missing: Annotated[
        str, typer.Option(help="error: stop at a video without prediction; zeros: fill it up.")
    ] = "error",
) -> None:
    """Write the competition's files from predictions: 0 or 1 for every frame, with or without a face."""
    from aupair.console import ConsoleLog, show_table
    from aupair.inference.submission import write_submission

    rows = write_submission(predictions, out, expected, form=form, missing=missing, log=ConsoleLog())
    odd = [(row.video, row.frames, row.message) for row in rows if row.message]
    if odd:
        show_table("Not as predicted", ("video", "frames", "what was done"), odd)
    typer.echo(f"{len(rows)} videos, {sum(row.frames for row in rows):,} frames: {out}")


def main() -> None:
    """Run the command line; an error that a user can mend is one line and an exit code, others keep their trace."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video gets one line from us, none from ffmpeg
    try:
        app()
    except AupairError as error:
        print(f"aupair: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == STOPPED:
            print("aupair: stopped; run it again to go on", file=sys.stderr)
        raise
