"""The command `aupair synth`, which writes a synthetic corpus."""

from pathlib import Path
from typing import Annotated

import typer

_PEOPLE = "People"
_LABELS = "Labels"
_MOVIES = "Movies"

EPILOG = (
    "Examples: `aupair synth data --subjects 24 --clips 1 --seconds 5 --seed 0`, "
    "`aupair synth own --aus AU18,AU33,AU43 --labelled .2`, "
    "`aupair synth hard --rare AU15,AU23,AU24 --held .4 --coder-noise .12 --coder-misses .1`, "
    "`aupair synth long --subjects 12 --seconds 60 --fps 25 --pauses 4 --covers-every 10 --covers-with-expressions .6`, "
    "`aupair synth others --clips 2 --asymmetry .6 --cameras`"
)


def synth(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    subjects: Annotated[
        int, typer.Option(min=4, max=999, help="People: half in fit, a quarter in select, a quarter in validation.")
    ] = 96,
    clips: Annotated[int, typer.Option(min=1, max=9, help="Videos of each person.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Length of each video.")] = 6.5,
    fps: Annotated[float, typer.Option(min=5, max=60, help="Frames per second.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; each seed creates other people.")] = 0,
    aus: Annotated[
        str, typer.Option(metavar="AU,AU...", help="The AUs that people show; by default Aff-Wild2's twelve.")
    ] = "",
    rare: Annotated[
        str,
        typer.Option(
            metavar="AU,AU...", help="AUs that are rare, for example AU15,AU23,AU24.", rich_help_panel=_PEOPLE
        ),
    ] = "",
    rare_rate: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the frames with a rare AU.", rich_help_panel=_PEOPLE)
    ] = 0.03,
    held: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the videos in which a person holds one expression nearly all the time.",
            rich_help_panel=_PEOPLE,
        ),
    ] = 0.0,
    pauses: Annotated[
        float,
        typer.Option(
            min=0,
            help="Mean pause between sequences of expressions, seconds; 0: none. For videos of several minutes.",
            rich_help_panel=_PEOPLE,
        ),
    ] = 0.0,
    asymmetry: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.8,
            help="Maximum share by which one side of a face moves more than the other, beyond the usual .15.",
            rich_help_panel=_PEOPLE,
        ),
    ] = 0.0,
    labelled: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1,
            help="Share of the frames that is labelled, drawn as intervals for each AU; the rest is -1.",
            rich_help_panel=_LABELS,
        ),
    ] = 1.0,
    coder_noise: Annotated[
        float,
        typer.Option(
            min=0,
            help="Standard deviation of the coder's errors of onsets and offsets, seconds.",
            rich_help_panel=_LABELS,
        ),
    ] = 0.0,
    coder_misses: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the events that the coder misses.", rich_help_panel=_LABELS),
    ] = 0.0,
    covers_every: Annotated[
        float,
        typer.Option(
            min=1.3,
            help="Seconds between two covers (objects in front of the face: a hand, a mug, a cap ...).",
            rich_help_panel=_MOVIES,
        ),
    ] = 1.8,
    covers_with_expressions: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the covers that coincide with an expression, hide it, and last longer.",
            rich_help_panel=_MOVIES,
        ),
    ] = 0.0,
    cameras: Annotated[
        bool,
        typer.Option(
            "--cameras",
            help="A different camera for each video: colours, size of the face, blur, noise, compression; "
            "some kinds are in validation only.",
            rich_help_panel=_MOVIES,
        ),
    ] = False,
) -> None:
    """Write a synthetic corpus: videos, annotations, subjects, splits, conditions.

    With Aff-Wild2's AUs and all labels, the layout is that of Aff-Wild2, otherwise aupair's own. Without options
    the corpus is that of the demo, in which expressions follow each other without a pause and the labels are exact.
    """
    from aupair.aus import AFFWILD2
    from aupair.console import ConsoleLog
    from aupair.extras import require
    from aupair.record import parse_settings
    from aupair.synth.corpus import SynthParams, synthesise

    require("skimage")  # checked here, since otherwise each of the processes that draw would fail
    people = {"rare": _names(rare), "rare_rate": rare_rate, "held": held, "pauses": pauses, "asymmetry": asymmetry}
    options = {
        "subjects": subjects,
        "clips": clips,
        "seconds": seconds,
        "fps": fps,
        "seed": seed,
        "aus": _names(aus) or AFFWILD2,
        "labelled": labelled,
        "people": people,
        "coder": {"shift": coder_noise, "missed": coder_misses},
        "covers": {"every": covers_every, "with_expressions": covers_with_expressions},
        "cameras": cameras,
    }
    params = parse_settings(SynthParams, options, "the options")
    synthesise(directory, params, ConsoleLog())
    typer.echo(f"{directory}: {subjects} people, {subjects * clips} videos")


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a text such as `AU1,AU2`."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
