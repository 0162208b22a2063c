"""The commands `aupair import KIND SOURCE --out data`, which write the data folder from labels in other layouts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from aupair.importing.recordings import Notes, Recording
    from aupair.importing.writer import WriteOptions

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write the data folder from labels in another layout; docs/data.md has a section about each.",
    epilog="Afterwards: `aupair split data`, then `aupair run check-data`.",
)


def _check_finite(value: float | None) -> float | None:
    """Reject NaN and infinity, which pass typer's check of `min`."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Source = Annotated[Path, typer.Argument(help="The labels: a file or a folder, which is not changed.")]
Out = Annotated[Path, typer.Option(help="The data folder to write.")]
Transfer = Annotated[
    Literal["link", "copy", "none"],
    typer.Option(
        help="How videos get into the data folder: hard links (copies where that is impossible), copies, or not at all.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace annotations and videos of the data folder.")]
AnyLength = Annotated[
    bool, typer.Option("--any-length", help="Accept labels for many more or many fewer frames than the video has.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Skip labels without a readable video, instead of an error.")
]
Videos = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The folder of the videos, with its subfolders; default: that of the labels."),
]
Subjects = Annotated[Path | None, typer.Option(metavar="CSV", help="A table video,subject: the person in each video.")]
Unit = Annotated[Literal["seconds", "frames"], typer.Option(help="The unit of an event's start and end.")]
Fps = Annotated[
    float | None,
    typer.Option(
        min=1, callback=_check_finite, help="Frames per second for events; default: that of each video's header."
    ),
]
Threshold = Annotated[float, typer.Option(help="The intensity from which an AU counts as active.")]


@app.command("affwild2", epilog="Example: `aupair import affwild2 Aff-Wild2 --out data`")
def import_affwild2(
    source: Source,
    out: Out = Path("data"),
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import Aff-Wild2: `annotations/AU_Set/Train_Set/<video>.txt ...`, and `videos/` or `cropped_aligned/`.

    The flow can also read that layout directly. The official sets are kept; a row with any -1 is not annotated.
    """
    from aupair.importing.affwild2 import read_affwild2
    from aupair.importing.writer import WriteOptions

    written = WriteOptions(out, transfer, overwrite, any_length)
    _write("affwild2", source, written, lambda notes: read_affwild2(source, allow_missing, notes))


@app.command(
    "csv",
    epilog="Examples: `aupair import csv labels.csv --videos recordings`, "
    "`aupair import csv labels --videos recordings --first-frame 1 --missing 9`, "
    "`aupair import csv intensities.csv --levels --threshold 2`, "
    "`aupair import csv events.csv --videos recordings --coded coded.csv`",
)
def import_csv(
    source: Source,
    out: Out = Path("data"),
    videos: Videos = None,
    subjects: Subjects = None,
    aus: Annotated[
        str,
        typer.Option(metavar="AU,AU", help="The columns that are AUs; default: all columns without another meaning."),
    ] = "",
    missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE,CODE",
            help="Values that mean: not labelled, such as 9,8; in addition to an empty cell, NaN, NA and -1.",
        ),
    ] = None,
    first_frame: Annotated[
        int | None, typer.Option(min=0, max=1, help="The number of a video's first frame in the table.")
    ] = None,
    levels: Annotated[bool, typer.Option("--levels", help="The cells are intensities from 0 to 5.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="The intensity from which an AU counts as active; default: 1.")
    ] = None,
    unit: Unit = "seconds",
    fps: Fps = None,
    coded: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="A table video,au or video,au,start,end of what was coded. Default: every AU of the table, in the whole of "
            "every video of the table.",
        ),
    ] = None,
    uncoded: Annotated[
        Literal["absent", "missing"],
        typer.Option(
            help="Without --coded, whether an AU without any event in a video is inactive there, or not labelled."
        ),
    ] = "absent",
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import tables with a row for each frame, or for each event.

    Frames: `video,frame,AU1,AU2...`, or a file for each video with `frame,AU1,AU2...`. Events:
    `video,start,end,au`, and optionally `intensity` (1 to 5, or A to E). Both may have a column `subject`.
    """
    from aupair.importing.csv_options import CsvOptions
    from aupair.importing.tabular import read_csv_labels
    from aupair.importing.writer import WriteOptions

    options = CsvOptions(
        videos=videos,
        aus=tuple(name.strip() for name in aus.split(",") if name.strip()),
        missing=tuple(code.strip() for codes in missing or () for code in codes.split(",")),
        levels=levels,
        threshold=threshold,
        first_frame=first_frame,
        subjects=subjects,
        unit=unit,
        fps=fps,
        coded=coded,
        uncoded=uncoded,
        allow_missing=allow_missing,
    )
    written = WriteOptions(out, transfer, overwrite, any_length)
    _write("csv", source, written, lambda notes: read_csv_labels(source, options, out, notes))


@app.command(
    "disfa", epilog="Examples: `aupair import disfa DISFA`, `aupair import disfa DISFA --camera right --threshold 1`"
)
def import_disfa(
    source: Source,
    out: Out = Path("data"),
    camera: Annotated[Literal["left", "right"], typer.Option(help="The camera whose movies are used.")] = "left",
    threshold: Threshold = 2.0,
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import DISFA: `ActionUnit_Labels/SN001/SN001_au1.txt ...` and `Videos_LeftCamera/LeftVideoSN001_comp.avi`.

    With --allow-missing, a person may also lack an AU that others have.
    """
    from aupair.importing.disfa import DisfaOptions, read_disfa
    from aupair.importing.writer import WriteOptions

    written, options = (
        WriteOptions(out, transfer, overwrite, any_length),
        DisfaOptions(camera, threshold, allow_missing),
    )
    _write("disfa", source, written, lambda notes: read_disfa(source, options, out, notes))


@app.command("bp4d", epilog="Examples: `aupair import bp4d BP4D`, `aupair import bp4d BP4D --allow-missing`")
def import_bp4d(
    source: Source,
    out: Out = Path("data"),
    fps: Annotated[float, typer.Option(min=1, help="Frames per second of the pictures.")] = 25.0,
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import BP4D or BP4D+: `AUCoding/AU_OCC/F001_T1.csv`, `AUCoding/AU_INT/AU06/F001_T1_AU06.csv`, `F001/T1/0001.jpg`.

    Images are encoded as movies (JPEGs of quality 95); movies `F001_T1.avi` are used as they are.
    """
    from aupair.importing.bp4d import Bp4dOptions, read_bp4d
    from aupair.importing.writer import WriteOptions

    written, options = WriteOptions(out, transfer, overwrite, any_length), Bp4dOptions(fps, allow_missing)
    _write("bp4d", source, written, lambda notes: read_bp4d(source, options, out, notes))


@app.command(
    "elan",
    epilog="Examples: `aupair import elan annotations`, `aupair import elan clip.eaf --videos recordings`, "
    "`aupair import elan annotations --tier AU12=smile --tier AU4=frown --ignore-text`",
)
def import_elan(
    source: Source,
    out: Out = Path("data"),
    tier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AU=TIER", help="A tier to read, and its AU; default: all tiers with names such as AU12L."
        ),
    ] = None,
    ignore_text: Annotated[
        bool, typer.Option("--ignore-text", help="Count every annotation as an event, whatever its text is.")
    ] = False,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The folder of the videos; default: the paths in the .eaf files, or their folder."
        ),
    ] = None,
    subjects: Subjects = None,
    fps: Fps = None,
    threshold: Threshold = 1.0,
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import ELAN's .eaf files: a tier for each AU, an annotation for each interval in which it is active.

    The text of an annotation is empty or an intensity: 1 to 5, or A to E. An AU is coded in the whole of each video that
    has its tier. The participant of the tiers is the person.
    """
    from aupair.importing.elan import ElanOptions, parse_tiers, read_elan
    from aupair.importing.writer import WriteOptions

    written = WriteOptions(out, transfer, overwrite, any_length)
    options = ElanOptions(parse_tiers(tier or ()), ignore_text, videos, fps, threshold, subjects, allow_missing)
    _write("elan", source, written, lambda notes: read_elan(source, options, out, notes))


def _write(kind: str, source: Path, options: "WriteOptions", read: "Callable[[Notes], list[Recording]]") -> None:
    """Read recordings, write the data folder, and print what was imported and what was not."""
    from aupair.console import ConsoleLog, show_table
    from aupair.errors import DataError
    from aupair.importing.recordings import Notes
    from aupair.importing.writer import check_out, write_data

    if not source.exists():
        raise DataError("no such file or folder", where=source)
    check_out(options.out, options.overwrite)
    notes = Notes()
    summary = write_data(kind, source, read(notes), notes, options, ConsoleLog())
    show_table(f"{options.out}: {summary.title()}", summary.HEADER, summary.rows())
    for line in notes.lines():
        typer.echo(line)
    typer.echo(f"next: aupair split {options.out}")
