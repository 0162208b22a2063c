"""The flow: ten stages as functions, which `aupair run`, DVC and Kubeflow call.

A stage takes the paths of its artifacts and a Params record. The parameters `f` and `h` are folders with a trained network
f (pseudo-intensity) or h (uncertainty) and its output for every frame; `aupair.stage.ARTIFACTS` names the path of each
artifact. Data is split by person: networks are fitted on `fit`, choices are made on `select`, and results are reported on
`validation`. The people of `fit` are divided into folds: one network f is trained for each fold, without its people, and
one, `final`, on all of `fit`. A trial is one training of these networks with its own seed. A frame of `fit` is scored by the
networks of its person's fold; all other frames, and those that predict reads, are scored by all networks, and their y_hat is
the mean (`ensemble: all`), or by `final` of the best trial.

A stage imports neither kfp nor dvc, and imports heavy libraries in its body. `FLOW` lists the stages; tests compare dvc.yaml
and params.yaml with it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aupair import store
from aupair.errors import ArtifactError, ParamsError, did_you_mean
from aupair.log import SILENT, Log
from aupair.params import Params
from aupair.ranking.weight_files import check_weights
from aupair.stage import Needs, Stage

SYNTHETIC = "Synthetic faces (the demo corpus): these figures compare methods; they are not accuracy on people."


def synthetic_note(data: Path) -> str:
    """Return the note for reports on a synthetic corpus; empty for other data.

    Only the synthetic corpus has conditions.csv: cover and head yaw of each frame.
    """
    return SYNTHETIC if (data / "conditions.csv").exists() else ""


def check_data(*, data: Path, labels: Path, info: Path, data_docs: Path, params: Params, log: Log = SILENT) -> None:
    """Read annotations and splits, check them, and hash the data."""
    from aupair.data.checks import check_data_folder

    aus = None if params.aus == "all" else params.aus
    places = {"labels": labels, "info": info, "docs": data_docs}
    check_data_folder(data, **places, params=params.check_data, aus=aus, target=params.target, log=log)


def preprocess_faces(*, data: Path, labels: Path, faces: Path, params: Params, log: Log = SILENT) -> None:
    """Turn each video into a file of aligned faces."""
    from aupair.data.layout import list_video_jobs
    from aupair.faces.folder import preprocess

    reports = preprocess(list_video_jobs(data, labels), faces, params.preprocess_faces, log)
    frames, faces_found = sum(report.frames for report in reports), sum(report.faces for report in reports)
    log.line(f"{len(reports)} videos, {frames} frames, {faces_found} with a face ({faces_found / max(frames, 1):.1%})")


def sample_pairs(*, labels: Path, faces: Path, pairs: Path, params: Params, log: Log = SILENT) -> None:
    """Draw fixed pairs to evaluate networks on, pairs or groups to train on, and the folds of people."""
    from aupair.data.frames import load_frames
    from aupair.ranking.samples import draw_samples

    samples = draw_samples(load_frames(labels, faces), params.sample_pairs, params.seed)
    samples.save(pairs)
    for line in samples.summary():
        log.line(line)


def embed_faces(*, labels: Path, faces: Path, embeddings: Path, params: Params, log: Log = SILENT) -> None:
    """Compute the features of every face once, if f's trunk is frozen (`network.frozen: true`); otherwise do nothing."""
    from aupair.data.frames import load_frames
    from aupair.ranking.embed import embed

    embed(faces, embeddings, load_frames(labels, faces), params, log)


def train_pseudo_intensity(
    *, labels: Path, faces: Path, pairs: Path, embeddings: Path, f: Path, params: Params, trial: int, checkpoints: Path | None = None,
    teacher: Path | None = None, log: Log = SILENT,
) -> None:  # fmt: skip
    """Train f by ranking, and compute y_hat of every frame with an f that was not trained on its person.

    Args:
        teacher: folder of the finished trial whose f and h are imitated (objective: distill).
    """
    from aupair.ranking.checkpoint import checkpointing, training_settings
    from aupair.ranking.distributed import is_main
    from aupair.ranking.embeddings import check_features
    from aupair.ranking.pseudo_intensity import train_f
    from aupair.ranking.samples import load_training_set
    from aupair.ranking.scores import save_f
    from aupair.ranking.teacher import load_teacher, teacher_folders

    seed = params.seed + trial
    # first, so that a wrong setting raises before anything is loaded
    settings = training_settings(params.train_pseudo_intensity, seed)
    frozen = params.train_pseudo_intensity.network.frozen
    if frozen:
        check_features(embeddings, params.train_pseudo_intensity.network, params)
    data = load_training_set(labels, faces, pairs, embeddings if frozen else None)
    inputs = {"labels": labels, "faces": faces, "pairs": pairs, "embeddings": embeddings}
    inputs |= {} if teacher is None else teacher_folders(teacher)
    teachers = None if teacher is None else partial(load_teacher, teacher, data.images.size)
    with checkpointing(
        f"train-pseudo-intensity-{trial}", checkpoints, inputs, settings, log
    ) as checkpoints_of_networks:
        result = train_f(data, params, seed, log, checkpoints_of_networks, teachers)
        if is_main():
            save_f(f, result, params, data.images.size, data.frames.aus)


def train_uncertainty(
    *, labels: Path, faces: Path, pairs: Path, embeddings: Path, f: Sequence[Path], h: Path, params: Params,
    checkpoints: Path | None = None, log: Log = SILENT,
) -> None:  # fmt: skip
    """Train h on the y_hat of f and, by default, the features of f's trunks, and compute sigma of every frame."""
    from aupair.data.quality import load_quality
    from aupair.ranking.checkpoint import checkpointing, training_settings
    from aupair.ranking.distributed import is_main
    from aupair.ranking.embeddings import check_features
    from aupair.ranking.ensemble import load_ensemble
    from aupair.ranking.samples import load_training_set
    from aupair.ranking.scores import load_member, read_network, save_h
    from aupair.ranking.uncertainty import train_h

    # first, so that a wrong setting raises before anything is loaded
    settings = training_settings(params.train_uncertainty, params.seed) | {"ensemble": params.ensemble}
    section = params.train_uncertainty
    network = section.network if section.kind == "network" else read_network(f[0])
    frozen = network.frozen
    if frozen:
        check_features(embeddings, network, params)
    data = load_training_set(labels, faces, pairs, embeddings if frozen else None)
    ensemble = load_ensemble(f, len(data.frames), params.ensemble)
    inputs = {"labels": labels, "faces": faces, "pairs": pairs, "embeddings": embeddings} | {
        f"f.{k}": folder for k, folder in enumerate(f)
    }
    with checkpointing("train-uncertainty", checkpoints, inputs, settings, log) as checkpoints_of_networks:
        result = train_h(
            data, ensemble, load_quality(faces, data.frames), partial(load_member, f), params, params.seed, log,
            checkpoints_of_networks,
        )  # fmt: skip
        if is_main():
            save_h(h, result, params, data.images.size, data.frames.aus)


def extract_features(
    *, labels: Path, faces: Path, f: Sequence[Path], h: Path, features: Path, params: Params, log: Log = SILENT
) -> None:
    """Fit the smoothers and the statistics that scale y_hat, and compute the features of every frame on each route."""
    from aupair.data.frames import load_frames
    from aupair.data.quality import load_quality
    from aupair.mapping.features import write_features
    from aupair.ranking.ensemble import load_ensemble
    from aupair.ranking.scores import read_sigma

    frames = load_frames(labels, faces)
    y_hat = load_ensemble(f, len(frames), params.ensemble).y_hat
    # without the guard: the smoother chooses itself how much of sigma it uses
    sigma, quality = read_sigma(h, len(frames), "unguarded"), load_quality(faces, frames)
    write_features(features, frames, y_hat, sigma, quality, params.extract_features, log)


def train_mapping(
    *, labels: Path, faces: Path, features: Path, mapping: Path, params: Params, log: Log = SILENT
) -> None:
    """Fit a mapping from features to levels on each route."""
    from aupair.data.frames import load_frames
    from aupair.mapping.features import open_features
    from aupair.mapping.fit import fit_mappings

    frames = load_frames(labels, faces)
    opened = open_features(features, frames)
    result, curves = fit_mappings(frames, opened, params.levels, params.train_mapping, params.seed, log)
    result.save(mapping, curves)


def evaluate(
    *, data: Path, labels: Path, info: Path, faces: Path, pairs: Path, f: Sequence[Path], h: Path, features: Path,
    mapping: Path, selection: Path, summary: Path, metrics: Path, draws: Path, table: Path, plots: Path, report: Path,
    params: Params, log: Log = SILENT,
) -> None:  # fmt: skip
    """Choose thresholds and mappings on `select` and calibrate the confidence there; score all on `validation`.

    Also write the reports. The selection includes the training reference, with which predict detects unusual videos.

    Args:
        data: the data folder, of which only conditions.csv is read: cover and head yaw of each frame (demo corpus only).
        info: check-data's description of the data, whose hash appears in the report.
    """
    from aupair.data.frames import load_frames
    from aupair.evaluation.conditions import load_conditions
    from aupair.evaluation.evaluate import evaluate_flow
    from aupair.evaluation.reference import KEY, fit_reference
    from aupair.evaluation.selection import read_outputs
    from aupair.ranking.samples import load_samples
    from aupair.report.reports import Places, Sources, write_reports

    frames = load_frames(labels, faces)
    outputs = read_outputs(frames, f=f, h=h, features=features, mapping=mapping, ensemble=params.ensemble)
    conditions = load_conditions(data / "conditions.csv", frames, log)
    samples = load_samples(pairs, frames)
    evaluation = evaluate_flow(frames, outputs, samples.pairs, conditions, params.evaluate, log, params.target)
    sources = Sources(faces, {"f": f[0], "h": h, "mapping": mapping}, params, synthetic_note(data), features, info)
    places = Places(summary, metrics, draws, table, plots, report)
    write_reports(evaluation, frames, places, samples.table(), sources)
    reference = fit_reference(frames, outputs, faces, synthetic=bool(synthetic_note(data)), log=log)
    store.write_json(selection, evaluation.selection | {KEY: reference.to_json()})


def register_model(
    *, info: Path, embeddings: Path, f: Sequence[Path], h: Path, features: Path, mapping: Path, selection: Path,
    summary: Path, metrics: Path, draws: Path, table: Path, plots: Path, report: Path, bundle: Path, registered: Path,
    params: Params, log: Log = SILENT,
) -> None:  # fmt: skip
    """Log the flow to MLflow and register its networks as a version of the model, unless they are registered already."""
    from aupair.inference.bundle import Parts
    from aupair.registry.register import register_bundle
    from aupair.registry.runs import collect_stage_run

    parts = Parts(tuple(f), h, mapping, features, selection, info, metrics, embeddings)
    reports = {"info": info, "metrics": metrics, "table": table, "plots": plots, "report": report}
    runs = []
    for stage in FLOW[:-1]:
        for n, trial in enumerate(params.trials if stage.per_trial else (None,)):
            places = reports | {"f": f[n], "h": h, "mapping": mapping}
            runs.append(collect_stage_run(stage, params, places, trial))
    to_log = (table, plots, report, summary, metrics, draws)
    result = register_bundle(bundle, parts, runs, to_log, params, log)
    store.write_json(registered, vars(result))


FLOW: tuple[Stage, ...] = (
    Stage("check-data", check_data, ("data",), ("labels", "info", "data_docs"), ("aus", "target", "check_data")),
    Stage("preprocess-faces", preprocess_faces, ("data", "labels"), ("faces",), ("preprocess_faces",)),
    Stage("sample-pairs", sample_pairs, ("labels", "faces"), ("pairs",), ("seed", "sample_pairs")),
    Stage(
        "embed-faces", embed_faces, ("labels", "faces"), ("embeddings",), ("seed", "embed_faces", "train_pseudo_intensity"),
        Needs(), Needs(gpus=1, memory=8),
    ),
    Stage(
        "train-pseudo-intensity", train_pseudo_intensity, ("labels", "faces", "pairs", "embeddings"), ("f",),
        ("seed", "train_pseudo_intensity"), Needs(gpus=1, memory=24), Needs(memory=8), per_trial=True, resumable=True,
    ),
    Stage(
        "train-uncertainty", train_uncertainty, ("labels", "faces", "pairs", "embeddings", "f"), ("h",),
        ("seed", "trials", "ensemble", "train_uncertainty"), Needs(gpus=1, memory=24), Needs(memory=8), resumable=True,
    ),
    Stage(
        "extract-features", extract_features, ("labels", "faces", "f", "h"), ("features",),
        ("trials", "ensemble", "extract_features"), Needs(memory=8),
    ),
    Stage(
        "train-mapping", train_mapping, ("labels", "faces", "features"), ("mapping",),
        ("seed", "target", "train_mapping"), Needs(memory=8),
    ),
    Stage(
        "evaluate", evaluate,
        ("data", "labels", "info", "faces", "pairs", "f", "h", "features", "mapping"),
        ("selection", "summary", "metrics", "draws", "table", "plots", "report"),
        ("target", "trials", "ensemble", "evaluate"), Needs(memory=8),
    ),
    Stage(
        "register-model", register_model,
        ("info", "embeddings", "f", "h", "features", "mapping", "selection", "summary", "metrics", "draws", "table",
         "plots", "report"),
        ("bundle", "registered"), tuple(Params.model_fields),  # the bundle holds the params
    ),
)  # fmt: skip
"""The stages in the order in which they run."""


def get_stage(name: str) -> Stage:
    """Return the stage of a name, which may have hyphens or underscores.

    Raises:
        ParamsError: there is no such stage.
    """
    for stage in FLOW:
        if stage.name == name.replace("_", "-"):
            return stage
    names = [stage.name for stage in FLOW]
    expected, todo = f"one of {', '.join(names)}", did_you_mean(name.replace("_", "-"), names, "")
    raise ParamsError("no such stage", got=name, expected=expected, todo=todo)


def needs_with(stage: Stage, params: Params) -> Needs:
    """Return what a stage needs with some params: heads on the features of a frozen trunk need less than whole networks."""
    f, h = params.train_pseudo_intensity, params.train_uncertainty
    network = h.network if stage.name == "train-uncertainty" and h.kind == "network" else f.network
    return stage.needs_if_frozen if network.frozen and stage.needs_if_frozen else stage.needs


def run_stage(
    name: str,
    params: Params,
    *,
    root: Path = Path(),
    trial: int | None = None,
    teacher: Path | None = None,
    log: Log = SILENT,
) -> None:
    """Run one stage on the artifacts under `root`.

    A training stage uses all processes that torchrun started, and continues from its last checkpoint; no other stage does.

    Args:
        trial: one of `params.trials`, for a stage that runs once for each; None: all of them.
        teacher: the working folder whose networks train-pseudo-intensity learns from with `objective: distill`.

    Raises:
        ParamsError: the stage, trial or teacher does not fit.
        ArtifactError: an input is missing.
        AupairError: an output cannot be written, or the stage fails.
    """
    stage = get_stage(name)
    if FLOW.index(stage) < FLOW.index(get_stage("embed-faces")):
        check_weights(params)  # before hours of work on videos
    more = {} if teacher is None else {"teacher": teacher}
    if more and (stage.name, params.train_pseudo_intensity.objective) != ("train-pseudo-intensity", "distill"):
        expected = "train-pseudo-intensity with objective: distill"
        raise ParamsError(
            "--teacher does not fit this stage", got=stage.name, expected=expected, todo="leave --teacher out"
        )
    with _connected_processes(stage) as is_main:
        for arguments in _checked_arguments(stage, params, root, trial):
            stage.run(**arguments, params=params, log=log if is_main else SILENT, **more)


@contextmanager
def _connected_processes(stage: Stage) -> Iterator[bool]:
    """Connect the processes that torchrun started; yield True in the one process that may write messages.

    Raises:
        ParamsError: torchrun started several processes, but the stage supports only one.
    """
    if not (stage.resumable or is_multiprocess()):
        yield True
        return
    from aupair.ranking.distributed import is_main, process_group

    with process_group():
        if not stage.resumable:
            raise ParamsError("this stage runs in one process", got=stage.name, todo="run it without torchrun")
        yield is_main()


def is_multiprocess() -> bool:
    """Return whether torchrun started several processes, of which this is one."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _checked_arguments(stage: Stage, params: Params, root: Path, trial: int | None) -> list[dict[str, Any]]:
    """Return the arguments of each call of a stage, one per trial or just one, after a check of all their paths."""
    if trial is not None and not stage.per_trial:
        raise ParamsError("--trial does not fit a stage that runs once", got=stage.name, todo="leave --trial out")
    if trial is not None and trial not in params.trials:
        raise ParamsError("no such trial", got=trial, expected=f"one of trials: {list(params.trials)}")
    numbers = [None] if not stage.per_trial else params.trials if trial is None else [trial]
    calls = [stage.paths(root, params.trials, number) for number in numbers]
    for places in calls:
        _check_paths(stage, places)
    more = {"checkpoints": root / "work" / "checkpoints"} if stage.resumable else {}
    return [places | more | ({"trial": number} if stage.per_trial else {}) for number, places in zip(numbers, calls)]


def _check_paths(stage: Stage, places: dict[str, Any]) -> None:
    """Check that the inputs exist and the outputs can be written, since a stage may run for hours before it writes.

    The folder `data` is checked in detail by the code that reads it.
    """
    for artifact in stage.reads:
        for path in places[artifact] if isinstance(places[artifact], list) else [places[artifact]]:
            if not path.exists() and artifact != "data":
                raise ArtifactError("missing input", where=path, todo=f"run {_stage_that_writes(artifact)} first")
    for artifact in stage.writes:
        store.check_writable(places[artifact])


def _stage_that_writes(artifact: str) -> str:
    """Return the name of the stage that writes an artifact."""
    return next(stage.name for stage in FLOW if artifact in stage.writes)
