"""`aupair pipeline`: the same stages on Kubeflow Pipelines; compile, plan, run locally, submit, schedule, doctor."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aupair.kubeflow.compiled import Compiled as CompiledFile

app = typer.Typer(no_args_is_help=True, help="Run the same stages on Kubeflow Pipelines: compile, plan, run, submit.")

Name = Annotated[str, typer.Argument(metavar="[train|predict]", help="Which pipeline.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file: the defaults of the pipeline's inputs.")]
Compiled = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A compiled pipeline.")]
Given = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="An input, or section.key=value of one.")
]


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
    """Compile a pipeline into the one file that is planned, run locally and submitted."""
    from aupair.kubeflow.cluster import load
    from aupair.kubeflow.compile import compile_pipeline
    from aupair.params import load_params

    options = load(cluster, [*(overrides or ()), *([f"image={image}"] if image is not None else ())])
    compile_pipeline(name, load_params(params), options, out)
    typer.echo(f"{out}: {name}, image {options.image}")


@app.command(
    epilog="Examples: `aupair pipeline plan train.yaml`, "
    "`aupair pipeline plan train.yaml --runner containers --param trials=[0,1]`"
)
def plan(
    compiled: Compiled,
    given: Given = None,
    runner: Annotated[
        str, typer.Option(metavar="subprocesses|containers|cluster", help="Who would run it.")
    ] = "cluster",
) -> None:
    """Show which tasks would run, how often, with what; and which settings the runner does not heed."""
    from typing import get_args

    from aupair.console import show_table
    from aupair.errors import ParamsError
    from aupair.kubeflow import compiled as files
    from aupair.kubeflow import plan as plans

    if runner not in get_args(plans.Runner):
        raise ParamsError("--runner", got=runner, expected=" | ".join(get_args(plans.Runner)))
    file = files.load(compiled)
    also = here(file) or {name: "(to be given)" for name, found in file.inputs.items() if found.default is None}
    arguments = files.arguments(file, given or (), also)
    tasks = plans.plan(file, arguments, runner)  # type: ignore[arg-type]
    show_table(
        f"{file.name}, image {', '.join(file.images)}",
        ("task", "times", "runs", "parameters", "asks for"),
        (
            (
                task.name,
                task.times,
                task.why,
                ", ".join(key if isinstance(value, dict) else f"{key}={value}" for key, value in task.params.items()),
                ", ".join(f"{key} {value}" for key, value in task.asks.items()),
            )
            for task in tasks
        ),
    )
    changed = [f"{key}: {value}" for key, value in files.changes(file, arguments).items()]
    typer.echo("\n".join(["Other than the file's defaults:", *(f"  {line}" for line in changed or ["nothing"])]))
    aside = plans.not_heeded(file, runner)  # type: ignore[arg-type]
    if aside:
        typer.echo("\n".join([f"Not heeded by {runner}:", *(f"  {line}" for line in aside)]))


@app.command(
    epilog="Examples: `aupair pipeline run train.yaml --local`, "
    "`aupair pipeline run train.yaml --local --containers --param trials=[0,1] --param train_mapping.epochs=3`"
)
def run(
    compiled: Compiled,
    given: Given = None,
    local: Annotated[bool, typer.Option("--local", help="On this machine; on a cluster: `submit`.")] = False,
    containers: Annotated[
        bool, typer.Option("--containers", help="In containers of the compiled image, else in subprocesses.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the run's folder goes: artifacts and logs.")] = Path("work/pipeline"),
) -> None:
    """Run the compiled file on this machine, a log for each task; the data are ./data unless --param source=... says."""
    from aupair.console import ConsoleLog
    from aupair.errors import ParamsError
    from aupair.kubeflow import compiled as files
    from aupair.kubeflow.local import run_local

    if not local:
        raise ParamsError(
            "pipeline run", got="no --local", todo="add it, or use `aupair pipeline submit` for a cluster"
        )
    file, log = files.load(compiled), ConsoleLog()
    arguments = files.arguments(file, given or (), here(file))
    for name in ("source", "model"):  # a container has another working folder
        if Path(str(arguments.get(name))).exists():
            arguments[name] = str(Path(arguments[name]).resolve())
    done = run_local(file, arguments, out, containers=containers, log=log)
    typer.echo(done.summary)
    typer.echo(f"run {done.run_id}: artifacts and logs in {done.folder}")


def here(file: "CompiledFile") -> dict[str, str]:
    """Give what a run on this machine takes unless told otherwise: the checkout's data folder."""
    data = Path("data")
    return (
        {"source": str(data.resolve())}
        if "source" in file.inputs and file.name == "aupair-train" and data.is_dir()
        else {}
    )


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
Debug = Annotated[bool, typer.Option("--debug", envvar="AUPAIR_DEBUG", help="Show the trace behind an error.")]
Experiment = Annotated[str, typer.Option(help="Where the runs are listed; made if it is missing.")]


@contextmanager
def _traced(debug: bool) -> Iterator[None]:
    """Show the trace of an error above its line."""
    try:
        yield
    except Exception:
        if debug:
            traceback.print_exc()
        raise


@app.command(
    epilog="Examples: `aupair pipeline submit train.yaml --param source=s3://bucket/data`, "
    "`aupair pipeline submit train.yaml --param source=s3://bucket/data --param trials=[0,1] --wait`"
)
def submit(
    compiled: Compiled,
    given: Given = None,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    experiment: Experiment = "aupair",
    name: Annotated[str, typer.Option(help="The run's name; else the pipeline's, and the time.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has ended; Ctrl-C does not stop the run.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 86400,
    debug: Debug = False,
) -> None:
    """Start a run of a compiled file on a cluster; --param is checked before anything is sent."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow import api, client, skew
    from aupair.kubeflow import compiled as files

    with _traced(debug):
        file, log = files.load(compiled), ConsoleLog()
        arguments = files.arguments(file, given or ())
        kfp = api.Kfp(api.find(host, namespace, token_file, ca_cert))
        if older := skew.compare(file, kfp.health.version):
            log.line(f"warning: {older}")
        run = client.submit(kfp, file, arguments, experiment=experiment, name=name)
        typer.echo(f"run {run.id}: {run.name}, in experiment {experiment}" + (f"\n{run.url}" if run.url else ""))
        if wait:
            typer.echo(f"succeeded after {client.wait(kfp, run, file, timeout, log)}")


@app.command(
    epilog='Examples: `aupair pipeline schedule train.yaml --name nightly --cron "0 30 2 * * *" --param source=s3://bucket/data`, '
    "`aupair pipeline schedule train.yaml --name weekly --interval 604800 --replace --param source=s3://bucket/data`"
)
def schedule(
    compiled: Compiled,
    name: Annotated[str, typer.Option(help="The schedule's name.")],
    given: Given = None,
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
    concurrency: Annotated[int, typer.Option("--max-concurrency", min=1, max=10, help="Runs of it at once.")] = 1,
    catchup: Annotated[bool, typer.Option("--catchup", help="Make up for runs that were missed.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Make it, but do not start it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the one of this name.")] = False,
    debug: Debug = False,
) -> None:
    """Have a compiled file run again and again on a cluster."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow import api, client, skew
    from aupair.kubeflow import compiled as files

    with _traced(debug):
        file = files.load(compiled)
        arguments = files.arguments(file, given or ())
        plan = client.Schedule(name, cron, interval or 0, concurrency, catchup, not disabled)
        kfp = api.Kfp(api.find(host, namespace, token_file, ca_cert))
        if older := skew.compare(file, kfp.health.version):
            ConsoleLog().line(f"warning: {older}")
        make = client.replace if replace else client.schedule
        made = make(kfp, file, arguments, plan, experiment=experiment)
        typer.echo(
            f"schedule {made.id}: {name}, {cron or f'every {interval} s'}" + (f"\n{made.url}" if made.url else "")
        )


@app.command(
    epilog="Examples: `aupair pipeline doctor --host http://localhost:8080`, "
    "`aupair pipeline doctor train.yaml --source s3://bucket/data`"
)
def doctor(
    compiled: Annotated[Path | None, typer.Argument(metavar="[FILE.yaml]", help="A compiled pipeline.")] = None,
    source: Annotated[str, typer.Option(metavar="s3://BUCKET/PREFIX", help="The data to ask for.")] = "",
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
) -> None:
    """Look at all that a run needs, a line for each; the exit code is that of the first that fails."""
    from aupair.kubeflow import api
    from aupair.kubeflow.doctor import Doctor

    try:
        server = api.find(host, namespace, token_file, ca_cert)
    except api.NoHostError:
        server = None
    checks = []
    for check in Doctor(server, compiled, source).examine():
        typer.echo(check)
        checks.append(check)
    raise typer.Exit(next((check.code for check in checks if check.code), 0))
