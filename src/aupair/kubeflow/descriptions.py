"""The descriptions of inputs and outputs in a compiled file, for readers of the file and users of KFP's web UI.

An artifact or input has the same description wherever it occurs. The keys of a params section are read from its settings
record. KFP's web UI (2.17) shows a pipeline's description but not those of its inputs, so that the former lists the latter.
"""

from collections.abc import Iterator
from typing import Any

from aupair.kubeflow.limits import MAX_SHARDS, MAX_TRIALS
from aupair.params import Params
from aupair.record import Record, list_keys

_INPUTS = {
    "source": "the place of the data, or of the videos to predict: s3://bucket/prefix, a folder on a mounted volume; "
    "for training also git+URL of a repository with a data.dvc",
    "revision": "the git revision, with git+URL",
    "remote": "the DVC remote to pull the data from, with git+URL; empty: the repository's default",
    "aus": "all, or the AUs to learn, such as AU1,AU2, of those that are annotated",
    "seed": "the base of all random seeds; each trial adds its number",
    "target": "occurrence: 0 or 1; intensity: levels 0 to 5",
    "trials": f"numbers of the trials, such as [0, 1]: f is trained once for each; at most {MAX_TRIALS}",
    "ensemble": "all: y_hat is the mean over all networks of all trials; final: the best trial's final network alone",
    "trial": "number of the trial",
    "model": "models:/NAME@ALIAS, models:/NAME/VERSION, or the folder of a bundle on a mounted volume",
    "shards": f"the maximum number of shards, at most {MAX_SHARDS}; each holds any number of videos",
    "shard": "number of the shard",
    "abstain": "share of decisions to abstain from, 0 to 1",
    "last_task": "the task whose success determines the success of the run",
    "run_id": "the run's id",
    "status": "the state of the run before the exit task, from KFP",
}

_ARTIFACTS = {
    "data": "videos, annotations, subjects and splits",
    "labels": "a row for every annotated frame: video, subject, split, time, levels of the AUs",
    "info": "the data's hash and counts",
    "data_docs": "Great Expectations' Data Docs of the annotations",
    "faces": "a file of aligned faces for each video",
    "pairs": "pairs, or groups of frames, to train and evaluate on, and the folds",
    "embeddings": "the frozen trunk of f and its features of every face, if there is one",
    "f": "the networks of pseudo-intensity of a trial, and y_hat of every frame",
    "h": "the networks of uncertainty, and sigma of every frame",
    "features": "the features of every frame",
    "mapping": "the mappings of each AU, from features to levels",
    "scores": "the last values of the training's curves",
    "curves": "the training's curves",
    "selection": "the chosen thresholds and mappings, with the evidence",
    "summary": "the main figures on validation",
    "metrics": "all figures on select and validation",
    "draws": "figures in the resamples of people",
    "table": "the table of scores, as text",
    "plots": "the curves of the report, as tables",
    "report": "the report, one page",
    "bundle": "the model, a folder with networks, mappings, choices and settings",
    "registered": "the version of the registered model, and the bundle's hash",
    "plan": "the assignment of videos to shards, and the version of the model",
    "tables": "a table of predictions for each video of the shard, and the status of each",
    "predictions": "a table of predictions for each video, and one summary",
    "overview": "the number of videos read, and those that could not be read, with the reason",
    "result": "the run's result, scores and links",
    "Output": "the numbers of the shards",
}


def describe(spec: dict[str, Any]) -> None:
    """Add descriptions to the inputs and outputs of a compiled pipeline and its tasks, in place.

    Args:
        spec: the first document of a compiled file.

    Raises:
        KeyError: an input or an output has no description here.
    """
    lines = [spec["pipelineInfo"]["description"], ""]
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    for name, definition in sorted(inputs.items(), key=lambda item: "defaultValue" in item[1]):  # required ones first
        definition["description"] = _describe_section(name) if _is_section(name) else _INPUTS[name]
        lines.append(f"* `{name}`: {definition['description']}")
    spec["pipelineInfo"]["description"] = "\n".join(lines)
    for component in spec["components"].values():
        if "executorLabel" in component:
            for name, definition in _definitions(component):
                definition["description"] = _describe(name)


def _definitions(component: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and definitions of a component's inputs and outputs."""
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in ("parameters", "artifacts"):
            yield from component.get(side, {}).get(kind, {}).items()


def _describe(name: str) -> str:
    """Return the short description of a component's input or output; the pipeline's description has the keys of sections."""
    return f"params section of {name.replace('_', '-')}" if _is_section(name) else (_INPUTS | _ARTIFACTS)[name]


def _is_section(name: str) -> bool:
    return name in Params.model_fields and isinstance(Params.model_fields[name].default, Record)


def _describe_section(name: str) -> str:
    """Return the description of a section, with its keys."""
    keys = ", ".join(list_keys(Params.model_fields[name].annotation))
    of = name.replace("_", "-")
    return f"settings of {of}, as in params.yaml; pass every key, since KFP replaces the whole section. Keys: {keys}"
