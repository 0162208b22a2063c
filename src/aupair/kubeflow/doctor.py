"""Checks of all that a submitted run needs, with a line for each (`aupair pipeline doctor`)."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from aupair.data.s3 import Patience, parse_address, s3_client
from aupair.errors import AupairError, DataError, ParamsError, scrub
from aupair.kubeflow.compat import check_server_version, parse_version
from aupair.kubeflow.pipeline_file import PipelineFile, read_pipeline_file
from aupair.kubeflow.server import Connection, Server
from aupair.kubeflow.server_errors import kfp_errors
from aupair.registry import mlflow_store
from aupair.retry import no_retries

_SECONDS = 5
"""Seconds to wait for an answer of S3, MLflow or docker; for the KFP server see `Connection`."""

_REVISION = "org.opencontainers.image.revision"
_TRACKING = "MLFLOW_TRACKING_URI"


class _Unsure(AupairError):
    """The result of a check that cannot be decided on this machine, or that the user should review."""


@dataclass(frozen=True)
class Check:
    """The result of one check: `ok` is None if it cannot be decided, `code` is the exit code of a failure."""

    name: str
    ok: bool | None
    line: str
    code: int = 0

    def __str__(self) -> str:
        return f"{'?' if self.ok is None else '✓' if self.ok else '✗'} {self.name:<10} {self.line}"


class Doctor:
    """The checks of a server, a compiled file, and the stores of data and models; each check is a method.

    Args:
        server: None if no host was named.
        path: a compiled pipeline, or None.
        source: `s3://bucket/prefix` of the data, or empty.
        version: the server's version, for a server that does not report it.
    """

    def __init__(self, server: Server | None, path: Path | None, source: str, version: str = "") -> None:
        self.server, self.path, self.source, self.version = server, path, source, version
        self.connection: Connection
        self.file: PipelineFile

    def run_checks(self) -> Iterator[Check]:
        """Yield the result of each check that is possible with the arguments and after the earlier checks."""
        yield _run_check("sdk", self._sdk_versions)
        if self.path:
            yield _run_check("file", self._read_file)
        yield _run_check("server", self._connect)
        if hasattr(self, "connection"):
            yield _run_check("version", self._server_version)
            yield _run_check("namespace", self._namespace)
        if hasattr(self, "file"):
            yield _run_check("image", self._image_name)
            yield _run_check("commit", self._image_commit)
            yield _run_check("secrets", self._secrets)
            yield _run_check("tracking", self._tracking_uri)
        yield _run_check("s3", self._object_store)
        yield _run_check("mlflow", self._registry)

    def _sdk_versions(self) -> str:
        return ", ".join(f"{name} {metadata.version(name)}" for name in ("kfp", "kfp-kubernetes", "kfp-server-api"))

    def _read_file(self) -> str:
        assert self.path is not None
        self.file = read_pipeline_file(self.path)
        required = "".join(f"; pass --param {name}=..." for name in self.file.required)
        return f"{self.path}: {self.file.name}, {len(self.file.inputs)} inputs{required}"

    def _connect(self) -> str:
        if self.server is None:
            raise _Unsure("not checked", todo="pass --host, or set KFP_ENDPOINT")
        self.connection = Connection(self.server, self.version)
        users = "many users" if self.connection.multi_user else "one user"
        return f"{self.server.host}: Kubeflow Pipelines {self.connection.version or 'of unknown version'}, {users}"

    def _server_version(self) -> str:
        """Check the server's version against the needs of the file, as submit does."""
        server, sdk = self.connection.version, metadata.version("kfp")
        if hasattr(self, "file"):
            check_server_version(self.file, server)
        if not server:
            raise _Unsure("the server does not report its version", todo="pass --server-version X.Y")
        if not hasattr(self, "file") and (parse_version(server) or (0, 0)) < (parse_version(sdk) or (0, 0)):
            raise _Unsure(f"server {server}, SDK {sdk}", todo="name the compiled file to see what that server lacks")
        return f"server {server}, SDK {sdk}"

    def _namespace(self) -> str:
        """List the experiments, which needs the same permissions as starting a run."""
        name = self.connection.namespace
        with kfp_errors(self.connection.server, f"list the experiments of {name or 'the server'}"):
            self.connection.experiments.experiment_service_list_experiments(page_size=1, namespace=name)
        return f"{name or 'none is needed'}: experiments can be listed"

    def _image_name(self) -> str:
        """Check that images are pinned.

        KFP's cache and the nodes identify an image by its name, and would not notice a changed image of the same name.
        """
        unpinned = [image for image in self.file.images if not _is_pinned(image)]
        if unpinned:
            todo = "compile with --image NAME:GIT_SHA or NAME@sha256:..."
            raise _Unsure(f"not pinned: {', '.join(unpinned)}", todo=todo)
        return f"{', '.join(self.file.images)}: pinned; whether the registry has it is not checked"

    def _image_commit(self) -> str:
        """Compare the commit of the pipeline's image, if docker or podman has it on this machine, with that of the checkout."""
        import docker

        git = ["git", "rev-parse", "HEAD"]
        try:
            with closing(docker.from_env(timeout=_SECONDS)) as engine:
                built = engine.images.get(self.file.images[0]).labels.get(_REVISION)
            head = subprocess.run(git, capture_output=True, text=True, timeout=_SECONDS).stdout.strip()
        except (docker.errors.DockerException, OSError, subprocess.TimeoutExpired) as error:
            todo = "it needs the image in docker or podman on this machine, and git"
            raise _Unsure(f"{self.file.images[0]} cannot be checked from here", todo=todo) from error
        if not Path("src/aupair").is_dir():  # a project's own commits say nothing about the image
            raise _Unsure(
                f"the image was built from {built or 'an unknown commit'}, this folder is not a checkout of aupair"
            )
        if not head or built != head:  # an image with uncommitted changes is labelled HEAD-dirty
            got = f"the image was built from {built or 'an unknown commit'}, the checkout is at {head or 'none'}"
            raise _Unsure(got, todo="make image, push it, compile again")
        return f"the image was built from the checkout's commit, {head[:12]}"

    def _secrets(self) -> str:
        """List the secrets and volume claims that must exist in the namespace before the first task starts."""
        names = _required_objects(self.file)
        if not names:
            return "the file uses no secret and no volume"
        namespace = (self.server.namespace if self.server else "") or "NAMESPACE"
        todo = f"kubectl -n {namespace} get {' '.join(names)}"
        raise _Unsure(f"cannot be checked from here: {', '.join(names)}", todo=todo)

    def _tracking_uri(self) -> str:
        """Return the MLflow server that the tasks will log to."""
        executors = self.file.spec["deploymentSpec"]["executors"].values()
        variables = [entry for executor in executors for entry in executor.get("container", {}).get("env", ())]
        uris = sorted({entry["value"] for entry in variables if entry["name"] == _TRACKING})
        if not uris:
            todo = f"compile with --set env.{_TRACKING}=http://..., unless the server gives each run its own"
            raise _Unsure("the tasks get no address of MLflow", todo=todo)
        return f"the tasks log to {', '.join(map(scrub, uris))}"

    def _object_store(self) -> str:
        """Check that the object store has data under the source's prefix."""
        if not self.source:
            raise _Unsure("not checked", todo="pass --source s3://bucket/prefix, and AWS_ENDPOINT_URL unless it is AWS")
        if not self.source.startswith("s3://"):
            raise ParamsError("--source is not an S3 address", got=self.source, expected="s3://bucket/prefix")
        bucket, prefix = parse_address(self.source)
        with s3_client(self.source, Patience(attempts=1, timeout=_SECONDS)) as client:
            listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        if not listed.get("KeyCount"):
            todo = "check the bucket's name and the prefix"
            raise DataError("nothing under this prefix", where=self.source, todo=todo)
        return f"{self.source} can be read at {scrub(client.meta.endpoint_url)}"

    def _registry(self) -> str:
        """List the models in the registry."""
        uri = os.environ.get(_TRACKING, "")
        if not uri:
            raise _Unsure(f"{_TRACKING} is not set: {mlflow_store.DEFAULT_URI} of this folder, which no pod can reach")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_SECONDS))
        with no_retries(), mlflow_store.mlflow_errors("the registry"):
            client = mlflow_store.open_mlflow()
            names = [model.name for model in client.search_registered_models(max_results=5)]
        return f"{scrub(uri)}: models {', '.join(names) or 'none yet'}"


def _is_pinned(image: str) -> bool:
    """Return whether an image's name has a digest, or a tag other than latest."""
    return "@sha256:" in image or image.rpartition("/")[2].partition(":")[2] not in ("", "latest")


def _required_objects(file: PipelineFile) -> list[str]:
    """Return the secrets and volume claims of a compiled file, in the form `secret/NAME` of kubectl."""
    executors = file.kubernetes.get("deploymentSpec", {}).get("executors", {}).values()
    kinds = {"secretAsEnv": "secret", "secretAsVolume": "secret", "imagePullSecret": "secret", "pvcMount": "pvc"}
    names = {
        f"{kind}/{entry.get('secretName') or entry.get('constant')}"
        for executor in executors
        for key, kind in kinds.items()
        for entry in executor.get(key, ())
    }
    return sorted(names, reverse=True)


def _run_check(name: str, check: Callable[[], str]) -> Check:
    """Run a check and return its result: passed, failed, or undecided."""
    try:
        return Check(name, True, check())
    except _Unsure as unsure:
        return Check(name, None, str(unsure))
    except AupairError as error:
        return Check(name, False, str(error), error.exit_code)
