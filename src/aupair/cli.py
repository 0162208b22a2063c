"""The command line: `aupair --help`. Each command imports what it needs when it runs, so that help is quick."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from aupair import __version__, cli_pipeline
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
registry = typer.Typer(no_args_is_help=True, help="Look at and move the versions of the registered model.")
app.add_typer(registry, name="registry")
app.add_typer(cli_pipeline.app, name="pipeline")

NEXT = """\
all figures               reports/table.md, reports/metrics.json
pictures                  reports/plots
the data's checks         reports/data_docs/index.html
runs and curves           mlflow ui --backend-store-uri sqlite:///mlflow.db
registered versions       aupair registry list
make one the champion     aupair registry promote VERSION
use it                    aupair predict VIDEO --out predictions"""
"""Where to look after a flow."""

STOPPED = 130
"""The exit code that typer makes of Ctrl-C, without a word."""

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
Name = Annotated[str, typer.Option(help="The registered model: register_model.name of params.yaml.")]


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
    params: ParamsFile = Path("params.yaml"),
    root: Annotated[Path, typer.Option(help="The folder that holds data/, work/ and reports/.")] = Path(),
) -> None:
    """Run one stage of the flow on this machine; training that was stopped goes on from its last checkpoint."""
    from aupair import stages
    from aupair.console import ConsoleLog
    from aupair.params import load

    stages.run(stage, load(params, overrides or ()), root=root, trial=trial, log=ConsoleLog())


@app.command(epilog="Example: `aupair flow`")
def flow() -> None:
    """Show the stages: what each reads, writes and needs."""
    from aupair.console import show_table
    from aupair.stages import ARTIFACTS, FLOW

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
    from aupair.evaluation.table import terminal
    from aupair.store import read_json

    show_lines(terminal(read_json(root / "reports" / "metrics.json")), NEXT)


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
    from aupair.data.splits import split as split_data

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
        typer.Option(min=0, max=1, metavar="Q", help="Leave out the least confident share of the decisions."),
    ] = None,
) -> None:
    """Recognise AUs in videos: a row for every frame, with uncertainty and confidence."""
    from aupair.console import ConsoleLog
    from aupair.registry.predict import find_videos
    from aupair.registry.predict import predict as predict_videos
    from aupair.registry.recognizer import Recognizer
    from aupair.registry.versions import resolve

    videos = find_videos(sources)
    predict_videos(videos, Recognizer.load(resolve(model), device), out, abstain, ConsoleLog())


@registry.command("list", epilog="Example: `aupair registry list`")
def list_versions(name: Name = "aupair") -> None:
    """List the versions, their scores and aliases."""
    from aupair.aus import AUS
    from aupair.console import show_table
    from aupair.registry.versions import versions

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
            for version in versions(name)
        ),
    )


@registry.command(epilog="Example: `aupair registry show 3`")
def show(version: Annotated[int, typer.Argument(help="Its number.")], name: Name = "aupair") -> None:
    """Show a version's tags: the choice of P1 or P2 for each AU, scores, data."""
    from aupair.console import show_table
    from aupair.registry.versions import show as show_version

    found = show_version(version, name)
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    tags = sorted(found.tags.items(), key=_natural)
    show_table(f"{name} version {found.number}{aliases}", ("tag", "value"), tags)


def _natural(tag: tuple[str, str]) -> list[str | int]:
    """Sort tags by name, numbers in it by value: AU2 stands before AU10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", tag[0])]


@registry.command(epilog='Examples: `aupair registry promote 3`, `aupair registry promote 3 --force "new cameras"`')
def promote(
    version: Annotated[int, typer.Argument(help="Its number.")],
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote although the gate refuses; recorded.")
    ] = None,
    name: Name = "aupair",
) -> None:
    """Make a version the champion, if the gate in mlflow/registry.yaml lets it."""
    from aupair.registry.versions import PREVIOUS, command, versions
    from aupair.registry.versions import promote as promote_version

    found = promote_version(version, force, name=name)
    back = any(PREVIOUS in other.aliases for other in versions(name))
    more = f"; {command('rollback', name)} takes that back" if back else ""
    typer.echo(f"version {found.number} is the champion{more}")


@registry.command(epilog="Example: `aupair registry rollback`")
def rollback(name: Name = "aupair") -> None:
    """Give the champion's place back to the previous one."""
    from aupair.registry.versions import rollback as roll_back

    typer.echo(f"version {roll_back(name).number} is the champion again")


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
