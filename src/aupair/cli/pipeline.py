"""`aupair pipeline`: compile the flow for Kubeflow Pipelines, run it locally, submit and schedule it, check a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aupair.kubeflow.pipeline_file import PipelineFile
    from aupair.kubeflow.server import Connection

app = typer.Typer(no_args_is_help=True, help="Run the same stages on Kubeflow Pipelines: compile, run, submit.")

Name = Annotated[str, typer.Argument(metavar="[train|predict]", help="Which pipeline.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file: the defaults of the pipeline's inputs.")]
CompiledFile = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A compiled pipeline.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="An input, or section.key=value of one.")
]
Host = Annotated[
    str,
    typer.Option(
        envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"],
        help="The server, behind Kubeflow's gateway https://HOST/pipeline; not needed in a pod of the cluster.",
    ),
]
Namespace = Annotated[str, typer.Option(envvar="KFP_NAMESPACE", help="Yours, on a server for many users.")]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the token; else the variable KFP_TOKEN.")
]
CaCert = Annotated[
    Path | None, typer.Option(metavar="FILE", envvar="KFP_CA_CERT", help="Certificate authorities to trust (PEM).")
]
Experiment = Annotated[str, typer.Option(help="Where the runs are listed; created if it does not exist.")]


@app.command(
    "compile",
    epilog="Examples: `aupair pipeline compile -o train.yaml --image registry.example.org/aupair:1a2b3c4`, "
    "`aupair pipeline compile -o train.yaml --cluster params/cluster.yaml --set gpus=2`, "
    "`aupair pipeline compile predict -o predict.yaml`",
)
def compile_(
    out: Annotated[Path, typer.Option("-o", "--out", help="The YAML file to write.")],
    name: Name = "train",
    image: Annotated[str | None, typer.Option(help="The project's image, by tag or digest.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="A file of options such as params/cluster.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override an option of the cluster.")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compile a pipeline into the one file that is run locally and submitted, and show its tasks."""
    from aupair.console import show_table
    from aupair.kubeflow.cluster import load_cluster
    from aupair.kubeflow.compile import compile_pipeline
    from aupair.kubeflow.pipeline_file import read_pipeline_file
    from aupair.kubeflow.task_table import list_tasks
    from aupair.params import load_params

    options = load_cluster(cluster, [*(overrides or ()), *([f"image={image}"] if image is not None else ())])
    compile_pipeline(name, load_params(params), options, out)
    header = ("task", "runs", "when", "inputs", "settings")
    show_table(f"{out}: {name}, image {options.image}", header, list_tasks(read_pipeline_file(out)))


@app.command(
    "run",
    epilog="Examples: `aupair pipeline run train.yaml --local`, "
    "`aupair pipeline run train.yaml --local --containers --param trials=[0,1] --param train_mapping.epochs=3`",
)
def run_locally(
    path: CompiledFile,
    texts: Arguments = None,
    local: Annotated[bool, typer.Option("--local", help="On this machine; on a cluster: `submit`.")] = False,
    containers: Annotated[
        bool, typer.Option("--containers", help="In containers of the compiled image, else in subprocesses.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the run's folder goes: artifacts and logs.")] = Path("work/pipeline"),
) -> None:
    """Run a compiled file on this machine, with a log for each task; by default on the data folder ./data."""
    from aupair.console import ConsoleLog
    from aupair.errors import ParamsError
    from aupair.kubeflow.local import run_local
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file

    if not local:
        todo = "add it, or use `aupair pipeline submit` for a cluster"
        raise ParamsError("pipeline run", got="no --local", todo=todo)
    file, data = read_pipeline_file(path), Path("data")
    defaults = {"source": str(data)} if file.name == "aupair-train" and data.is_dir() else {}
    arguments = parse_arguments(file, texts or (), defaults)
    for name in ("source", "model"):  # a container has another working folder
        if Path(str(arguments.get(name))).exists():
            arguments[name] = str(Path(arguments[name]).resolve())
    folder, summary = run_local(file, arguments, out, containers=containers, log=ConsoleLog())
    typer.echo(summary)
    typer.echo(f"run {folder.name}: artifacts and logs in {folder}")


def _prepare(
    path: Path, texts: list[str] | None, host: str, namespace: str, token_file: Path | None, ca_cert: Path | None
) -> "tuple[PipelineFile, dict[str, Any], Connection]":
    """Return a compiled file, its checked arguments, and a connection to a server that can run it."""
    from aupair.kubeflow.compat import check_server_version
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file
    from aupair.kubeflow.server import Connection, find_server

    file = read_pipeline_file(path)
    arguments = parse_arguments(file, texts or ())
    connection = Connection(find_server(host, namespace, token_file, ca_cert))
    check_server_version(file, connection.version)
    return file, arguments, connection


@app.command(
    epilog="Examples: `aupair pipeline submit train.yaml --param source=s3://bucket/data`, "
    "`aupair pipeline submit train.yaml --param source=s3://bucket/data --param trials=[0,1] --wait`"
)
def submit(
    path: CompiledFile,
    texts: Arguments = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    experiment: Experiment = "aupair",
    name: Annotated[str, typer.Option(help="The run's name; else the pipeline's, and the time.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has finished; Ctrl-C does not stop the run.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 86400,
) -> None:
    """Start a run of a compiled file on a cluster; --param is checked before anything is sent."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow.runs import submit_run, wait_for_run

    file, arguments, connection = _prepare(path, texts, host, namespace, token_file, ca_cert)
    run = submit_run(connection, file, arguments, experiment=experiment, name=name)
    typer.echo(f"run {run.id}: {run.name}, in experiment {experiment}" + (f"\n{run.url}" if run.url else ""))
    if wait:
        typer.echo(f"succeeded after {wait_for_run(connection, run, file, timeout, ConsoleLog())}")


@app.command(
    epilog='Examples: `aupair pipeline schedule train.yaml --name nightly --cron "0 30 2 * * *" --param source=s3://bucket/data`, '
    "`aupair pipeline schedule train.yaml --name weekly --interval 604800 --replace --param source=s3://bucket/data`"
)
def schedule(
    path: CompiledFile,
    name: Annotated[str, typer.Option(help="The schedule's name.")],
    texts: Arguments = None,
    cron: Annotated[
        str, typer.Option(metavar='"S M H DAY MONTH WEEKDAY"', help="Six fields, seconds first, UTC.")
    ] = "",
    interval: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="From run to run, instead of --cron.")
    ] = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    experiment: Experiment = "aupair",
    concurrency: Annotated[int, typer.Option("--max-concurrency", min=1, max=10, help="Runs that may overlap.")] = 1,
    catchup: Annotated[bool, typer.Option("--catchup", help="Make up for runs that were missed.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it, but do not start it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the schedule of this name.")] = False,
) -> None:
    """Create a schedule by which a cluster runs a compiled file again and again."""
    from aupair.kubeflow.runs import Schedule, create_schedule

    times = Schedule(name, cron, interval or 0, concurrency, catchup, not disabled)
    file, arguments, connection = _prepare(path, texts, host, namespace, token_file, ca_cert)
    created = create_schedule(connection, file, arguments, times, experiment=experiment, replace=replace)
    when = cron or f"every {interval} s"
    typer.echo(f"schedule {created.id}: {name}, {when}" + (f"\n{created.url}" if created.url else ""))


@app.command(
    epilog="Examples: `aupair pipeline doctor --host http://localhost:8080`, "
    "`aupair pipeline doctor train.yaml --source s3://bucket/data`"
)
def doctor(
    path: Annotated[Path | None, typer.Argument(metavar="[FILE.yaml]", help="A compiled pipeline.")] = None,
    source: Annotated[str, typer.Option(metavar="s3://BUCKET/PREFIX", help="The data to look for.")] = "",
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
) -> None:
    """Check all that a run needs, one line each; the exit code is that of the first check that fails."""
    from aupair.kubeflow.doctor import Doctor
    from aupair.kubeflow.server import NoHostError, find_server

    try:
        server = find_server(host, namespace, token_file, ca_cert)
    except NoHostError:
        server = None
    codes = []
    for check in Doctor(server, path, source).run_checks():
        typer.echo(check)
        codes.append(check.code)
    raise typer.Exit(next(filter(None, codes), 0))
