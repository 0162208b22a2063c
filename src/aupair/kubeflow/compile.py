"""Compilation of pipelines/*.py to a file that can be run locally or submitted (`aupair pipeline compile`)."""

import importlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from aupair import __version__, store
from aupair.errors import ParamsError
from aupair.kubeflow.cluster import Cluster, TaskSettings
from aupair.kubeflow.descriptions import describe
from aupair.kubeflow.limits import check_trials
from aupair.params import Params
from aupair.project import shipped

_PIPELINES = ("train", "predict")


def compile_pipeline(name: str, params: Params, cluster: Cluster, out: Path, root: Path = Path()) -> None:
    """Compile a pipeline to YAML, with the params as defaults of its inputs.

    Args:
        name: `train` or `predict`.
        out: the YAML file; its second document holds the settings for Kubernetes.
        root: a folder whose subfolder `pipelines`, if it exists, is used instead of the installed pipelines.

    Raises:
        ParamsError: no such pipeline, too many trials, or `out` is not a YAML file or not a compiled pipeline.
    """
    from kfp import compiler, dsl

    if name not in _PIPELINES:
        raise ParamsError("no such pipeline", got=name, expected=" or ".join(_PIPELINES))
    check_trials(len(params.trials))
    if out.suffix not in (".yaml", ".yml"):
        raise ParamsError("-o is not a YAML file", got=out, expected="a file named *.yaml")
    if out.exists() and not (out.is_file() and out.read_text(errors="replace").startswith("# aupair-")):
        raise ParamsError(
            "-o would overwrite another file",
            got=out,
            expected="a new file, or a compiled pipeline",
            todo="name another",
        )
    ttl = cluster.ttl or None
    config = dsl.PipelineConfig(
        ttl_seconds_after_finished=ttl,
        # KFP's defaults of these two would take precedence over the setting above
        ttl_seconds_after_success=ttl,
        ttl_seconds_after_failure=ttl,
        active_deadline_seconds=cluster.deadline or None,
    )
    with importable_pipelines(root), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp warns about its future defaults
        factory = getattr(importlib.import_module(f"pipelines.{name}"), f"{name}_pipeline")
        function = factory(params, TaskSettings(cluster, params), cluster.parallelism or None, config)
        compiled = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(function, str(compiled))
        spec, *platform = yaml.safe_load_all(compiled.read_text())
    describe(spec)
    body = yaml.safe_dump_all([spec, *platform])
    store.write_text(out, f"# aupair-{name}, compiled by aupair {__version__}. Do not edit: compile it again.\n{body}")


@contextmanager
def importable_pipelines(root: Path) -> Iterator[None]:
    """Make the folders components and pipelines importable: those of `root`, if it has pipelines, then the installed ones."""
    own = [root.resolve()] if any((root / "pipelines" / f"{name}.py").is_file() for name in _PIPELINES) else []
    paths = [str(path) for path in (*own, shipped("pipelines").parent)]
    before = list(sys.path)
    sys.path[:0] = paths
    try:
        yield
    finally:
        sys.path[:] = before
