"""Look at everything that a submitted run needs, one line for each: what was seen, and how to mend it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from aupair.data.s3 import Patience, parse_address, s3_client
from aupair.errors import AupairError, DataError, ParamsError, scrub
from aupair.kubeflow import skew
from aupair.kubeflow.api import Kfp, Server
from aupair.kubeflow.compiled import Compiled, load
from aupair.kubeflow.refusals import told
from aupair.registry import mlflow_store

SECONDS = 5
"""How long anything but the KFP server, which has its own limits, may take to answer."""

REVISION = "org.opencontainers.image.revision"
TRACKING = "MLFLOW_TRACKING_URI"


class Unsure(AupairError):
    """Nothing is wrong for certain: it cannot be told from here, or deserves a look."""


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        ok: None where it cannot be told.
        code: the exit code of its error; 0 unless `ok` is False.
    """

    name: str
    ok: bool | None
    line: str
    code: int = 0

    def __str__(self) -> str:
        return f"{'?' if self.ok is None else '✓' if self.ok else '✗'} {self.name:<10} {self.line}"


class Doctor:
    """Looks at a server, a compiled file and the stores behind them; a look is a method that says what it saw.

    Args:
        server: None where no host was named.
        file: a compiled pipeline, or None.
        source: `s3://bucket/prefix` of the data, or empty.
    """

    def __init__(self, server: Server | None, file: Path | None, source: str) -> None:
        self.server, self.path, self.source = server, file, source
        self.kfp: Kfp | None = None
        self.compiled: Compiled | None = None
        self.labels: dict[str, str] | None = None

    def examine(self) -> Iterator[Check]:
        """Take every look that what was given, and the looks before it, allow."""
        yield _look("sdk", self.sdk)
        if self.path:
            yield _look("file", self.file)
        yield _look("server", self.answers)
        if self.kfp:
            yield _look("version", self.version)
            yield _look("namespace", self.namespace)
        if self.compiled:
            yield _look("image", self.image)
            yield _look("image here", self.image_here)
            if self.labels is not None:
                yield _look("commit", self.commit)
            yield _look("secrets", self.secrets)
            yield _look("tracking", self.tracked)
        yield _look("s3", self.s3)
        yield _look("mlflow", self.mlflow)

    def sdk(self) -> str:
        """Name the SDK's versions."""
        return ", ".join(f"{name} {metadata.version(name)}" for name in ("kfp", "kfp-kubernetes", "kfp-server-api"))

    def file(self) -> str:
        """Read the compiled file."""
        assert self.path is not None
        self.compiled = load(self.path)
        needed = [name for name, found in self.compiled.inputs.items() if found.default is None]
        more = f"; give --param {'=... --param '.join(needed)}=..." if needed else ""
        return f"{self.path}: {self.compiled.name}, {len(self.compiled.inputs)} inputs{more}"

    def answers(self) -> str:
        """Ask the server who it is."""
        if self.server is None:
            raise Unsure("not asked", todo="give --host, or set KFP_ENDPOINT")
        self.kfp = Kfp(self.server)
        users = "many users" if self.kfp.health.multi_user else "one user"
        return f"{self.server.host}: Kubeflow Pipelines {self.kfp.health.version or 'of some version'}, {users}"

    def version(self) -> str:
        """Compare the server with the SDK that compiled the file, else with ours."""
        assert self.kfp is not None
        theirs, ours = self.kfp.health.version, metadata.version("kfp")
        if not theirs:
            raise Unsure("the server does not tell its version")
        if self.compiled:
            if older := skew.compare(self.compiled, theirs):
                raise Unsure(older)
        elif (skew.parse(theirs) or (0, 0)) < (skew.parse(ours) or (0, 0)):
            raise Unsure(f"server {theirs}, SDK {ours}", todo="name the compiled file to see what that server lacks")
        return f"server {theirs}, SDK {ours}"

    def namespace(self) -> str:
        """List an experiment, which needs the rights that a run needs."""
        assert self.kfp is not None
        name = self.kfp.namespace
        with told(self.kfp.server, f"listing the experiments of {name or 'the server'}"):
            self.kfp.experiments.experiment_service_list_experiments(
                page_size=1, **({"namespace": name} if name else {})
            )
        return f"{name or 'none is needed'}: experiments can be listed"

    def image(self) -> str:
        """See whether the images are pinned: the cache and the nodes know an image by its name alone."""
        assert self.compiled is not None
        loose = [image for image in self.compiled.images if not pinned(image)]
        if loose:
            raise Unsure(f"not pinned: {', '.join(loose)}", todo="compile with --image NAME:GIT_SHA or NAME@sha256:...")
        return ", ".join(self.compiled.images)

    def image_here(self) -> str:
        """Look for the image in the container engine of this machine."""
        import docker

        assert self.compiled is not None
        name = self.compiled.images[0]
        try:
            with closing(docker.from_env(timeout=SECONDS)) as engine:
                found = engine.images.get(name)
        except docker.errors.ImageNotFound as error:
            raise Unsure(f"{name} is not on this machine", todo="make image, or pull it, to have it checked") from error
        except (docker.errors.DockerException, OSError) as error:
            raise Unsure(f"{name} cannot be checked from here: no docker or podman answers") from error
        self.labels = dict(found.labels)
        return f"{name}, {found.short_id}"

    def commit(self) -> str:
        """Compare the commit that the image was built from with the checkout's."""
        assert self.labels is not None
        built, head, mend = self.labels.get(REVISION, ""), _head(), "make image, push it, compile again"
        if built in ("", "unknown"):
            raise Unsure("the image does not tell its commit")
        if not head:
            raise Unsure(f"the image was built from {built[:12]}; this is no checkout to compare it with")
        if built.removesuffix("-dirty") != head:
            raise Unsure(f"the image was built from {built[:12]}, the checkout is at {head[:12]}", todo=mend)
        if built != head:
            raise Unsure(f"the image was built from {head[:12]} with changes that were not committed", todo=mend)
        return f"the image is of the checkout's commit, {head[:12]}"

    def secrets(self) -> str:
        """Name what must be there in the namespace before the first task starts."""
        assert self.compiled is not None
        wanted = needed(self.compiled)
        if not wanted:
            return "the file asks for no secret and no volume"
        name = (self.server.namespace if self.server else "") or "NAMESPACE"
        raise Unsure(f"cannot be seen from here: {', '.join(wanted)}", todo=f"kubectl -n {name} get {' '.join(wanted)}")

    def tracked(self) -> str:
        """See where the tasks will log to."""
        assert self.compiled is not None
        executors = self.compiled.spec["deploymentSpec"]["executors"].values()
        env = [entry for executor in executors for entry in executor.get("container", {}).get("env", ())]
        found = {entry["value"] for entry in env if entry["name"] == TRACKING}
        if not found:
            todo = f"compile with --set env.{TRACKING}=http://..., unless the server gives each run its own"
            raise Unsure("the tasks are not told where MLflow is", todo=todo)
        return f"the tasks log to {', '.join(scrub(uri) for uri in sorted(found))}"

    def s3(self) -> str:
        """Ask the object store for the data, or for its buckets."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        if not self.source and not endpoint:
            raise Unsure("not asked", todo="give --source s3://bucket/prefix, and AWS_ENDPOINT_URL where it is not AWS")
        if self.source and not self.source.startswith("s3://"):
            raise ParamsError("--source", got=self.source, expected="s3://bucket/prefix")
        where = self.source.rstrip("/") or "the list of buckets"
        bucket, prefix = parse_address(self.source) if self.source else ("", "")
        with s3_client(where, Patience(attempts=1, timeout=SECONDS)) as client:
            endpoint = scrub(client.meta.endpoint_url)
            if not bucket:
                return f"{endpoint}: {len(client.list_buckets()['Buckets'])} buckets"
            found = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        if not found.get("KeyCount"):
            raise DataError("nothing under this prefix", where=where, todo="check the bucket's name and the prefix")
        return f"{where} can be read at {endpoint}"

    def mlflow(self) -> str:
        """Ask the registry for a model."""
        uri = os.environ.get(TRACKING, "")
        if not uri:
            raise Unsure(f"{TRACKING} is not set: {mlflow_store.DEFAULT_URI} of this folder, which no pod can reach")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client = mlflow_store.open_mlflow()
        with mlflow_store.mlflow_errors("the registry"):
            names = [model.name for model in client.search_registered_models(max_results=5)]
        return f"{scrub(uri)}: models {', '.join(names) or 'none yet'}"


def pinned(image: str) -> bool:
    """Say whether an image's name stays the same image: a digest, or a tag other than latest."""
    return "@sha256:" in image or image.rpartition("/")[2].partition(":")[2] not in ("", "latest")


def needed(compiled: Compiled) -> list[str]:
    """Give the secrets and volume claims that a compiled file refers to, as kubectl names them."""
    tasks = skew.kubernetes(compiled).get("deploymentSpec", {}).get("executors", {}).values()
    kinds = {"secretAsEnv": "secret", "secretAsVolume": "secret", "imagePullSecret": "secret", "pvcMount": "pvc"}
    found = {
        f"{kind}/{entry.get('secretName') or entry.get('constant')}"
        for task in tasks
        for key, kind in kinds.items()
        for entry in task.get(key, ())
    }
    return sorted(found, reverse=True)


def _look(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Unsure as doubt:
        return Check(name, None, str(doubt))
    except AupairError as error:
        return Check(name, False, str(error), error.exit_code)


def _head() -> str:
    """Give the commit of the checkout in the working folder; empty where there is none."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
