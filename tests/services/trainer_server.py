"""A stand-in for a cluster with Kubeflow Trainer on loopback: the real one needs Kubernetes, which tests cannot have.

It speaks the paths that the SDK `kubeflow` uses for a TrainJob; bodies are read by the SDK's own models, and a key that
they don't know is an error. Each node of a TrainJob is run here as its pod would be: the command by its own shell, with
the variables that Trainer's torch plugin sets. What only a cluster can show (webhooks, JobSet, quotas, volumes) it cannot.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMESPACE = "aupair"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
JOBS = f"{TRAINER}/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
BORN = "2026-01-01T00:00:00Z"
RUNTIME = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {"spec": {"replicatedJobs": [{
            "name": "node",
            "template": {
                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "pytorch"}]}}},
            },
        }]}},
    },
}  # fmt: skip
"""As Trainer's own manifests have it."""


@dataclass
class Node:
    """A pod of a TrainJob: a process, where it `runs`, and its phase."""

    name: str
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    given: str = "Running"

    @property
    def phase(self) -> str:
        if self.process is None or self.process.poll() is None:
            return self.given
        return "Failed" if self.process.returncode else "Succeeded"

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""


@dataclass
class Cluster:
    """What it has and was asked.

    Attributes:
        runs: whether nodes are run; else they stay as they are made.
        status: answered to everything, where it is an error.
        jobs: the bodies of the TrainJobs that are there.
        nodes: those of each.
        asked: the bodies of all TrainJobs that there ever were.
    """

    url: str = ""
    runs: bool = True
    status: int = 200
    runtime: Mapping[str, Any] | None = field(default_factory=lambda: RUNTIME)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, list[Node]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def client(self) -> Any:
        """Give the SDK's client of it."""
        from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
        from kubernetes.client import Configuration

        return TrainerClient(KubernetesBackendConfig(namespace=NAMESPACE, client_configuration=Configuration(self.url)))

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Take a TrainJob, and run its nodes."""
        from kubeflow_trainer_api import models

        read = models.TrainerV1alpha1TrainJob.from_dict(body)
        assert read is not None
        name = body["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(f"{name}-node-0-0-abcde") <= 63, "a pod's name"
        if read.to_dict() != body:
            return 400, f"unknown keys in {body}"
        if name in self.jobs:
            return 409, "already exists"
        self.asked.append(body)
        self.put(body)
        if self.runs:
            self._run(body)
        return 201, body

    def put(self, body: dict[str, Any], phase: str = "Running") -> None:
        """Have a TrainJob that runs nothing."""
        name = body["metadata"]["name"]
        body["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": BORN}
        self.jobs[name] = body
        count = body["spec"]["trainer"]["numNodes"]
        self.nodes[name] = [Node(f"{name}-node-0-{n}", Path(tempfile.mkdtemp()), given=phase) for n in range(count)]

    def _run(self, body: dict[str, Any]) -> None:
        trainer, nodes = body["spec"]["trainer"], self.nodes[body["metadata"]["name"]]
        limits = trainer.get("resourcesPerNode", {}).get("limits", {})
        processes = next((int(n) for key, n in limits.items() if "/" in key), int(limits.get("cpu", 1)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, node in enumerate(nodes):
            env = {item["name"]: item["value"] for item in trainer["env"]}
            env |= {"PET_NNODES": str(len(nodes)), "PET_NPROC_PER_NODE": str(processes), "PET_NODE_RANK": str(rank)}
            env |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
            env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # as in the image
            with open(node.folder / "log", "wb") as log:
                node.process = subprocess.Popen(
                    trainer["command"], cwd=node.folder, env={**os.environ, **env}, stdout=log, stderr=log
                )

    def delete(self, name: str) -> None:
        """End a TrainJob's nodes, and forget it."""
        del self.jobs[name]
        for node in self.nodes.pop(name):
            if node.process:
                node.process.kill()
                node.process.wait()

    def shown(self, name: str) -> dict[str, Any]:
        """Give a TrainJob with its status."""
        phases = {node.phase for node in self.nodes[name]}
        ended = "Failed" if "Failed" in phases else "Complete" if phases == {"Succeeded"} else ""
        condition = {"type": ended, "status": "True", "reason": "x", "message": "", "lastTransitionTime": BORN}
        return self.jobs[name] | {"status": {"conditions": [condition]} if ended else {}}

    def pods(self, name: str) -> dict[str, Any]:
        """List the pods of a TrainJob."""
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": "node"}
        items = [
            {
                "metadata": {
                    "name": node.name, "creationTimestamp": BORN,
                    "labels": labels | {"batch.kubernetes.io/job-completion-index": str(n)},
                },
                "spec": {"containers": [{"name": "node", "image": "x"}]},
                "status": {"phase": node.phase},
            }
            for n, node in enumerate(self.nodes.get(name, ()))
        ]  # fmt: skip
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        """Answer a request with a status and JSON, or text."""
        if self.status >= 400:
            return self.status, "as told"
        if method == "POST" and path == JOBS:
            return self.create(body)
        name = path.removeprefix(f"{JOBS}/")
        if name in self.jobs:
            if method == "DELETE":
                self.delete(name)
            return 200, self.shown(name) if method == "GET" else {}
        if path == PODS:
            found = re.search(r"jobset-name%3D([-a-z0-9]+)", query)
            return 200, self.pods(found[1] if found else "")
        if path == f"{TRAINER}/clustertrainingruntimes/torch-distributed" and self.runtime:
            return 200, self.runtime
        pods = {f"{PODS}/{node.name}/log": node for nodes in self.nodes.values() for node in nodes}
        if path in pods:
            if "follow=True" in query and pods[path].process:
                pods[path].process.wait()  # type: ignore[union-attr]
            return 200, pods[path].log()
        return 404, "not found"


@contextmanager
def trainer_server() -> Iterator[Cluster]:
    """Run it; what is left of its nodes ends with it."""
    cluster = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            url = urlsplit(self.path)
            status, found = cluster.answer(self.command, url.path, url.query, body)
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        for name in list(cluster.jobs):
            cluster.delete(name)
        server.shutdown()
        server.server_close()
