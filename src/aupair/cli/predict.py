"""The command `aupair predict`, which recognises Action Units in videos."""

import os
from pathlib import Path
from typing import Annotated

import typer

from aupair.cli.waiting import Wait

EPILOG = (
    "Examples: `aupair predict clip.mp4 --out predictions`, `aupair predict recordings --out predictions --abstain .2`"
)


def predict(
    sources: Annotated[list[Path], typer.Argument(help="Videos, and folders that are searched for videos.")],
    out: Annotated[Path, typer.Option(help="The folder for a CSV and a picture of each video.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="models:/NAME@ALIAS, models:/NAME/VERSION, or the folder of a bundle; default: the champion of the model "
            "that params.yaml names.",
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 ...")] = "auto",
    abstain: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="Q",
            help="Abstain from the least confident share of each AU's active and inactive decisions.",
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="C", help="Keep this share of the decisions; the same as --abstain 1-C."),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="R",
            help="Abstain from the fewest decisions such that at most a share R is wrong, with 95 % confidence.",
        ),
    ] = None,
    aus: Annotated[
        str | None,
        typer.Option(metavar="AU,AU", help="Predict only these AUs, such as AU4,AU12; their order is the model's."),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="A table video,subject: the clips of a person share a neutral face (extract_features.neutral: person).",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes, each with one video at a time and 1 GiB or more; 0: one for each core, at most 8; on a GPU one.",
        ),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in --out of another model or of other settings.")
    ] = False,
    wait: Wait = None,
) -> None:
    """Recognise Action Units in videos: a CSV with a row for every frame, with uncertainty and confidence."""
    # torch's threads would spin between two layers on the cores that find the next faces; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from aupair.api import Recognizer
    from aupair.aus import check_au_names
    from aupair.console import ConsoleLog
    from aupair.inference.abstain import check_abstain_options, choose_abstain_share
    from aupair.inference.bundle import hash_selection
    from aupair.inference.output import check_output, claim_output, describe_settings
    from aupair.inference.predict import predict_videos
    from aupair.inference.videos import find_videos, read_persons
    from aupair.params import project_model_name
    from aupair.pool import stopped_by_sigterm
    from aupair.registry.versions import pin_version, resolve_bundle

    # what can be refused without the model is refused before the registry and the networks take their seconds
    videos, log = find_videos(sources), ConsoleLog()
    names = None if aus is None else [name.strip() for name in aus.split(",")]
    if names is not None:
        check_au_names(names, "the AUs to predict")
    if device not in ("auto", "cpu"):
        from aupair.ranking.networks import pick_device

        pick_device(device)
    if subjects is not None:
        read_persons(subjects, videos)
    share = check_abstain_options(abstain, coverage, risk)
    model = model or f"models:/{project_model_name()}@champion"
    settings = describe_settings(model, "", names or (), share, subjects)
    unknown = {"model_sha256"} | ({"aus"} if names is None else set()) | ({"abstain"} if risk is not None else set())
    check_output(videos, out, {key: settings[key] for key in settings if key not in unknown}, overwrite)

    model = pin_version(model)
    bundle = resolve_bundle(model)
    check_output(videos, out, {"model": model, "model_sha256": hash_selection(bundle)}, overwrite)
    recognizer = Recognizer.load(bundle, device, names)
    share = choose_abstain_share(recognizer, abstain, coverage, risk, log)
    settings = describe_settings(model, recognizer.sha256, recognizer.aus, share, subjects)
    earlier = claim_output(out, settings, overwrite)
    with stopped_by_sigterm():
        predict_videos(videos, recognizer, out, share, log, subjects, earlier, workers)
