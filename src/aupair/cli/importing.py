"""The commands `aupair import KIND SOURCE --out data`, which write the data folder from labels in other layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aupair.importing.recordings import Notes, Recording

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write the data folder from labels in another layout; docs/data.md has a section about each.",
    epilog="Afterwards: `aupair split data`, then `aupair run check-data`.",
)

Source = Annotated[Path, typer.Argument(help="The labels: a file or a folder. Nothing in it is changed.")]
Out = Annotated[Path, typer.Option(help="The data folder to write.")]
Transfer = Annotated[
    str,
    typer.Option(
        metavar="link|copy|none",
        help="How videos get into the data folder: hard links (copies where that is impossible), copies, or not at all.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace annotations and videos of the data folder.")]
AnyLength = Annotated[
    bool, typer.Option("--any-length", help="Accept labels for many more or fewer frames than the video has.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out labels without a video that opens, instead of an error.")
]
Videos = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="The folder of the movies, searched with those below; default: that of the labels."
    ),
]
Subjects = Annotated[Path | None, typer.Option(metavar="CSV", help="A table video,subject: who is who.")]
Threshold = Annotated[float, typer.Option(help="The intensity from which an AU counts as active.")]


@app.command(
    "csv",
    epilog="Examples: `aupair import csv labels.csv --videos recordings`, "
    "`aupair import csv labels --videos recordings --first-frame 1 --missing 9`, "
    "`aupair import csv intensities.csv --levels --threshold 2`",
)
def import_csv(
    source: Source,
    out: Out = Path("data"),
    videos: Videos = None,
    subjects: Subjects = None,
    aus: Annotated[
        str, typer.Option(metavar="AU,AU", help="The columns that are AUs; default: all without another meaning.")
    ] = "",
    missing: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="A cell that means: not labelled. Always: an empty cell, NaN, NA, -1."),
    ] = None,
    first_frame: Annotated[
        int | None, typer.Option(min=0, max=1, help="The number of a video's first frame in the table.")
    ] = None,
    levels: Annotated[bool, typer.Option("--levels", help="The cells are intensities from 0 to 5.")] = False,
    threshold: Threshold = 1.0,
    transfer: Transfer = "link",
    allow_missing: AllowMissing = False,
    any_length: AnyLength = False,
    overwrite: Overwrite = False,
) -> None:
    """Import tables: a row for each frame (`video,frame,AU...`; or a file for each video with `frame,AU...`)."""
    from aupair.importing.tabular import CsvOptions, read_csv_labels

    options = CsvOptions(
        videos=videos,
        aus=tuple(name.strip() for name in aus.split(",") if name.strip()),
        missing=tuple(missing or ()),
        levels=levels,
        threshold=threshold,
        first_frame=first_frame,
        subjects=subjects,
        allow_missing=allow_missing,
    )
    _write(
        "csv",
        source,
        (out, transfer, overwrite, any_length),
        lambda notes: read_csv_labels(source, options, out, notes),
    )


def _write(
    kind: str, source: Path, options: tuple[Path, str, bool, bool], read: "Callable[[Notes], list[Recording]]"
) -> None:
    """Read recordings, write the data folder, and print what was imported and what was not."""
    from aupair.console import ConsoleLog, show_table
    from aupair.importing.recordings import Notes
    from aupair.importing.writer import WriteOptions, check_out, write_data

    out, transfer, overwrite, _ = options
    if transfer not in ("link", "copy", "none"):
        raise typer.BadParameter(f"{transfer}: link, copy or none", param_hint="--transfer")
    check_out(out, overwrite)
    notes, log = Notes(), ConsoleLog()
    summary = write_data(kind, source, read(notes), notes, WriteOptions(*options), log)  # type: ignore[arg-type]
    show_table(f"{out}: {summary.title()}", summary.HEADER, summary.rows())
    for line in notes.lines():
        typer.echo(line)
    typer.echo(f"next: aupair split {out}")
