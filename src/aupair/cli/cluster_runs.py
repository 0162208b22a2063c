"""The commands for a cluster: `aupair pipeline submit | schedule | upload | status | logs | cancel | doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aupair.kubeflow.limits import MAX_SHARDS, MAX_TRIALS

if TYPE_CHECKING:
    from aupair.kubeflow.pipeline_file import PipelineFile
    from aupair.kubeflow.server import Connection

app = typer.Typer()

CompiledFile = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A compiled pipeline.")]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="An input, or section.key=value of one; "
        f"at most {MAX_TRIALS} trials, or {MAX_SHARDS} shards of any number of videos.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"],
        help="The server, behind Kubeflow's gateway https://HOST/pipeline; not needed in a pod of the cluster.",
    ),
]
Namespace = Annotated[str, typer.Option(envvar="KFP_NAMESPACE", help="Your namespace, on a multi-user server.")]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the token; default: the variable KFP_TOKEN.")
]
CaCert = Annotated[
    Path | None, typer.Option(metavar="FILE", envvar="KFP_CA_CERT", help="Certificate authorities to trust (PEM).")
]
ServerVersion = Annotated[
    str,
    typer.Option(
        metavar="X.Y", envvar="KFP_SERVER_VERSION", help="The server's version, if the server does not report it."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run's id, as `submit` and `status` print it.")]
Timeout = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="The maximum time to wait.")]
Experiment = Annotated[str, typer.Option(help="The experiment to list the run under; created if it does not exist.")]


def _connect_for(
    file: "PipelineFile", version: str, host: str, namespace: str, token_file: Path | None, ca_cert: Path | None
) -> "Connection":
    """Return a connection to a server after a check that it is new enough for a compiled file."""
    from aupair.kubeflow.compat import check_server_version

    connection = _connect(host, namespace, token_file, ca_cert, version)
    check_server_version(file, connection.version)
    return connection


def _connect(
    host: str, namespace: str, token_file: Path | None, ca_cert: Path | None, version: str = ""
) -> "Connection":
    """Return a connection to a server."""
    from aupair.kubeflow.server import Connection, find_server

    return Connection(find_server(host, namespace, token_file, ca_cert), version)


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
    server_version: ServerVersion = "",
    experiment: Experiment = "aupair",
    name: Annotated[str, typer.Option(help="The run's name; default: the pipeline's name and the time.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the run has finished; Ctrl-C does not stop the run.")
    ] = False,
    timeout: Timeout = 86400,
) -> None:
    """Start a run of a compiled file on a cluster; --param is checked before anything is sent."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file
    from aupair.kubeflow.run_status import wait_for_run
    from aupair.kubeflow.runs import submit_run

    file = read_pipeline_file(path)
    arguments = parse_arguments(file, texts or ())
    connection = _connect_for(file, server_version, host, namespace, token_file, ca_cert)
    run = submit_run(connection, file, arguments, experiment=experiment, name=name)
    typer.echo(f"run {run.id}: {run.name}, in experiment {experiment}" + (f"\n{run.url}" if run.url else ""))
    if wait:
        where = run.url or f"run {run.id}"
        typer.echo(f"succeeded after {wait_for_run(connection, run.id, where, timeout, ConsoleLog())}")


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
        int | None, typer.Option(min=1, metavar="SECONDS", help="Time between runs, instead of --cron.")
    ] = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    server_version: ServerVersion = "",
    experiment: Experiment = "aupair",
    concurrency: Annotated[int, typer.Option("--max-concurrency", min=1, max=10, help="Runs that may overlap.")] = 1,
    catchup: Annotated[bool, typer.Option("--catchup", help="Run missed runs later.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create the schedule without starting it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the schedule of this name.")] = False,
) -> None:
    """Create a schedule that runs a compiled file repeatedly on a cluster."""
    from aupair.kubeflow.pipeline_file import parse_arguments, read_pipeline_file
    from aupair.kubeflow.runs import Schedule, create_schedule

    times = Schedule(name, cron, interval or 0, concurrency, catchup, not disabled)
    file = read_pipeline_file(path)
    arguments = parse_arguments(file, texts or ())
    connection = _connect_for(file, server_version, host, namespace, token_file, ca_cert)
    created = create_schedule(connection, file, arguments, times, experiment=experiment, replace=replace)
    when = cron or f"every {interval} s"
    typer.echo(f"schedule {created.id}: {name}, {when}" + (f"\n{created.url}" if created.url else ""))


@app.command(
    epilog="Examples: `aupair pipeline upload train.yaml`, `aupair pipeline upload train.yaml --version 2.1.0`"
)
def upload(
    path: CompiledFile,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    server_version: ServerVersion = "",
    name: Annotated[str, typer.Option(help="The pipeline's name; default: the name in the file.")] = "",
    version: Annotated[str, typer.Option(help="The version's name; default: the hash of the file.")] = "",
) -> None:
    """Upload a compiled file as a version of a pipeline, for runs that are started from Kubeflow's web UI."""
    from aupair.kubeflow.pipeline_file import read_pipeline_file
    from aupair.kubeflow.uploads import upload_pipeline

    file = read_pipeline_file(path)
    connection = _connect_for(file, server_version, host, namespace, token_file, ca_cert)
    uploaded, created = upload_pipeline(connection, file, name, version)
    done = "uploaded" if created else "was uploaded before; nothing has changed"
    typer.echo(f"{name or file.name} version {uploaded.name}: {done}" + (f"\n{uploaded.url}" if uploaded.url else ""))


@app.command(epilog="Examples: `aupair pipeline status`, `aupair pipeline status 7c1d9a1e-0f5b-4d6a-9c55-1b2f3a4d5e6f`")
def status(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN_ID]", help="The run whose tasks are shown; without it, the latest runs."),
    ] = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=200, help="The number of runs to show.")] = 10,
) -> None:
    """Show the latest runs, or the tasks of one run with their states and durations."""
    from aupair.console import show_table
    from aupair.kubeflow.run_status import list_runs
    from aupair.kubeflow.run_tasks import format_duration, get_run, is_cut_off, list_tasks

    connection = _connect(host, namespace, token_file, ca_cert)
    if run_id is None:
        show_table("", ("run", "name", "state", "created (UTC)", "took"), list_runs(connection, count))
        return
    run = get_run(connection, run_id)
    rows = [(task.name, task.state, format_duration(task.seconds)) for task in list_tasks(run)]
    typer.echo(f"{run.display_name}: {run.state or 'PENDING'}" + ("" if rows else "; no task has begun"))
    if rows:
        show_table("", ("task", "state", "took"), rows)
    if is_cut_off(run):
        typer.echo("the server's list stops here: it shows no tasks after a run's state has grown over 1 MiB")


@app.command(
    epilog="Examples: `aupair pipeline logs RUN_ID`, `aupair pipeline logs RUN_ID --task train-mapping --tail 50`"
)
def logs(
    run_id: RunId,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    task: Annotated[
        str, typer.Option(help="The task whose logs are printed; default: the failed tasks, or all if none failed.")
    ] = "",
    tail: Annotated[
        int | None, typer.Option(min=1, metavar="LINES", help="Print only this many last lines of each log.")
    ] = None,
) -> None:
    """Print the logs of a run's tasks; Kubernetes keeps them as long as the pods, unless the server archives them."""
    from aupair.errors import RejectedError
    from aupair.kubeflow.run_status import kubectl_logs, read_logs
    from aupair.kubeflow.run_tasks import get_run

    connection = _connect(host, namespace, token_file, ca_cert)
    shown = False
    for log in read_logs(connection, get_run(connection, run_id), task):
        typer.echo(f"==> {log.task}, pod {log.pod}")
        if log.text is None:
            typer.echo(f"no log: {log.reason}")
        else:
            typer.echo("\n".join(log.text.splitlines()[-(tail or 0) :]))
            shown = True
    if not shown:
        todo = f"try {kubectl_logs(run_id, connection.server.namespace)}"
        raise RejectedError("the server has no log of these tasks", where=f"run {run_id}", todo=todo)


@app.command(epilog="Example: `aupair pipeline cancel RUN_ID --wait`")
def cancel(
    run_id: RunId,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has ended.")] = False,
    timeout: Timeout = 600,
) -> None:
    """Stop a run that has not ended; its exit task still writes the summary."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow.run_status import cancel_run, wait_for_end

    connection = _connect(host, namespace, token_file, ca_cert)
    cancel_run(connection, run_id)
    if not wait:
        typer.echo(f"run {run_id}: stopping")
        return
    state = wait_for_end(connection, run_id, timeout, ConsoleLog())
    typer.echo(f"run {run_id}: ended as {state}")


@app.command(
    epilog="Examples: `aupair pipeline doctor --host http://localhost:8080`, "
    "`aupair pipeline doctor train.yaml --source s3://bucket/data`"
)
def doctor(
    path: Annotated[Path | None, typer.Argument(metavar="[FILE.yaml]", help="A compiled pipeline.")] = None,
    source: Annotated[str, typer.Option(metavar="s3://BUCKET/PREFIX", help="The data that the run will read.")] = "",
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    server_version: ServerVersion = "",
) -> None:
    """Check all that a run needs and print a line for each check; the exit code is that of the first failed check."""
    from aupair.kubeflow.doctor import Doctor
    from aupair.kubeflow.server import NoHostError, find_server

    try:
        server = find_server(host, namespace, token_file, ca_cert)
    except NoHostError:
        server = None
    codes = []
    for check in Doctor(server, path, source, server_version).run_checks():
        typer.echo(check)
        codes.append(check.code)
    raise typer.Exit(next(filter(None, codes), 0))
