"""The commands `aupair pipeline compile` and `run`, which compile the flow for Kubeflow Pipelines and run it on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from aupair.cli import cluster_runs
from aupair.cli.cluster_runs import Arguments, CompiledFile

app = typer.Typer(no_args_is_help=True, help="Run the same stages on Kubeflow Pipelines: compile, run, submit.")

Name = Annotated[str, typer.Argument(metavar="[train|predict]", help="The pipeline to compile.")]
ParamsFile = Annotated[
    Path, typer.Option("--params", help="The params file, which sets the defaults of the pipeline's inputs.")
]


@app.command(
    "compile",
    epilog="Examples: `aupair pipeline compile -o train.yaml --image registry.example.org/aupair:1a2b3c4`, "
    "`aupair pipeline compile -o train.yaml --cluster params/cluster.yaml --set gpus=2`, "
    "`aupair pipeline compile predict -o predict.yaml`",
)
def _compile(
    out: Annotated[Path, typer.Option("-o", "--out", help="The YAML file to write.")],
    name: Name = "train",
    image: Annotated[str | None, typer.Option(help="The image of the tasks, by tag or digest.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="A file of options such as params/cluster.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override an option of the cluster.")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compile a pipeline to one file, which can be run on this machine or submitted to a cluster, and show its tasks."""
    from aupair.console import ConsoleLog, show_table
    from aupair.kubeflow.cluster import load_cluster
    from aupair.kubeflow.compile import compile_pipeline
    from aupair.kubeflow.pipeline_file import read_pipeline_file
    from aupair.kubeflow.task_table import tabulate_tasks
    from aupair.params import load_params

    options = load_cluster(cluster, [*(overrides or ()), *([f"image={image}"] if image is not None else ())])
    compile_pipeline(name, load_params(params), options, out)
    for warning in options.warnings if name == "train" else ():
        ConsoleLog().line(f"warning: {warning}")
    header = ("task", "runs", "when", "inputs", "settings")
    show_table(f"{out}: {name}, image {options.image}", header, tabulate_tasks(read_pipeline_file(out)))


@app.command(
    "run",
    epilog="Examples: `aupair pipeline run train.yaml --local`, "
    "`aupair pipeline run train.yaml --local --containers --param trials=[0,1] --param train_mapping.epochs=3`",
)
def _run(
    path: CompiledFile,
    texts: Arguments = None,
    local: Annotated[bool, typer.Option("--local", help="Run on this machine; `submit` runs it on a cluster.")] = False,
    containers: Annotated[
        bool, typer.Option("--containers", help="Run in containers of the compiled image instead of subprocesses.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="The folder in which the run's folder (artifacts and logs) is created.")
    ] = Path("work/pipeline"),
) -> None:
    """Run a compiled file on this machine, with a log for each task; by default on the data folder ./data."""
    from aupair.console import ConsoleLog
    from aupair.errors import ParamsError
    from aupair.kubeflow.local import run_local
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file

    if not local:
        todo = "add it, or use `aupair pipeline submit` for a cluster"
        raise ParamsError("pipeline run needs --local", todo=todo)
    file, data = read_pipeline_file(path), Path("data")
    defaults = {"source": str(data)} if file.name == "aupair-train" and data.is_dir() else {}
    arguments = parse_arguments(file, texts or (), defaults)
    for name in ("source", "model"):  # a container has another working folder
        if Path(str(arguments.get(name))).exists():
            arguments[name] = str(Path(arguments[name]).resolve())
    folder, summary = run_local(file, arguments, out, containers=containers, log=ConsoleLog())
    typer.echo(summary)
    typer.echo(f"run {folder.name}: artifacts and logs in {folder}")


app.add_typer(cluster_runs.app)  # its commands follow those above
