"""A stand-in for the API server of Kubeflow Pipelines on loopback: the real one needs Kubernetes, which tests don't have.

It answers as the code of the server does, tag 2.17.0 (`backend/src/apiserver`): it refuses unknown keys in a body, a first
document that is no PipelineSpec (HTTP 500), arguments of a wrong name or type, and unknown keys in a task's settings (HTTP
500 with a stack trace); it drops a second document with an unknown key in `pipelineConfig` in silence; the details of the
tasks hold no error text; a run that somebody stopped ends as FAILED; a log that does not exist has status 200.

It does not behave as the server in this: it runs nothing, so a run goes through `states`, one at each request; a run whose
arguments the driver would refuse fails at its first request; whatever Kubernetes and Argo refuse is accepted (names of
nodes, quotas, roles, images, cron); everybody may do everything in `namespace`; a page holds all rows; filters know only
the equality of names; there are no SDK-side v1beta1 paths. Set as `ui`, it answers as Kubeflow's user interface, which
forwards the API.
"""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import yaml

from services.kfp_driver import type_errors
from services.kfp_nodes import node
from services.kfp_spec import (
    Refusal,
    check_arguments,
    check_task_settings,
    check_trigger,
    known_documents,
    read_body,
    read_settings,
    read_spec,
)

Answer = tuple[int, Mapping[str, str], str]

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
MANIFEST = {
    "run": "Failed to create a new run: InternalServerError: Failed to create a run due to error fetching manifest",
    "schedule": "Failed to create a recurring run: InternalServerError: "
    "Failed to create a recurring run with an invalid pipeline spec manifest",
}
INPUTS = {
    "run": "Failed to create a new run: Failed to generate the ExecutionSpec",
    "schedule": "Failed to create a recurring run: Failed to create a recurring run during scheduled workflow creation",
}
"""The server's words for what it was doing."""

HTML: Answer = (200, {"Content-Type": "text/html"}, "<!doctype html><title>Sign in</title>")
REDIRECT: Answer = (302, {"Location": "https://login.example.org/dex/auth?state=very-secret"}, "")


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class KfpServer:
    """The state and the behaviour of the server; a test sets and reads the attributes while it runs.

    Attributes:
        always: the answer to everything, instead of the right one.
        token: the only accepted one; empty: everybody is accepted.
        namespace: the only one that its user may see, on a server for several users.
        states: of a run, one at each request, the last one for ever; a number from 400 on is a failing HTTP status.
        nodes: of the Argo workflow of every run, from `node`.
        logs: by the name of the pod.
        unknown: keys that an older server does not know.
        settings: what the server took of the second document, by run; empty where it dropped it.
        ui: answer as the user interface.
    """

    url: str = ""
    version: str = "2.17.0"
    namespace: str = ""
    token: str = ""
    always: Answer | None = None
    states: list[str | int] = field(default_factory=lambda: ["SUCCEEDED"])
    nodes: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    settings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    ui: bool = False
    requests: list[Request] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def received(self, method: str, resource: str) -> list[Request]:
        """Return the requests for a resource."""
        return [r for r in self.requests if r.method == method and r.path.startswith(f"/apis/v2beta1/{resource}")]

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        self.requests.append(request)
        if self.always:
            return self.always
        try:
            if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refusal(401, f"Unauthenticated: no user for {request.headers.get('Authorization')}")
            answer = self._route(request)
            return (200, TEXT, answer) if isinstance(answer, str) else (200, JSON, json.dumps(answer))
        except Refusal as refusal:
            text = {"code": GRPC_CODES.get(refusal.status, 2), "message": refusal.text, "details": []}
            if request.path.startswith("/apis/v2beta1/pipelines/upload"):
                text = {"error_message": refusal.text, "error_details": refusal.text}
            return refusal.status, JSON, json.dumps(text)

    def _route(self, request: Request) -> Any:
        resource, _, identifier = request.path.removeprefix("/apis/v2beta1/").partition("/")
        run_id, _, action = identifier.partition(":")
        match request.method, resource, identifier:
            case "GET", "healthz", "":
                return self._health()
            case "GET", "experiments", "":
                return {"experiments": self._list(self.experiments, request)}
            case "POST", "experiments", "":
                return self._add_experiment(read_body(request.body, "V2beta1Experiment"))
            case "POST", "runs", "":
                return self._add_run(read_body(request.body, "V2beta1Run"), request.body)
            case "GET", "runs", "":
                return {"runs": self._list(self.runs, request)[::-1]}
            case "GET", "runs", _ if run_id in self.runs:
                return self._run(run_id)
            case "POST", "runs", _ if run_id in self.runs and action == "terminate":
                return self._terminate(run_id)
            case method, "runs", _:
                text = f"Failed to fetch run {run_id}: ResourceNotFoundError: Run {run_id} not found"
                context = f"terminate a run: Failed to terminate run {run_id} due to error fetching the run"
                raise Refusal(404, f"Failed to {context if method == 'POST' else 'get a run'}: {text}")
            case "GET", "recurringruns", "":
                return {"recurringRuns": self._list(self.schedules, request)}
            case "POST", "recurringruns", "":
                schedule = read_body(request.body, "V2beta1RecurringRun")
                check_trigger(schedule)
                _, settings = self._check("schedule", schedule)
                row = {**request.body, "pipeline_spec": known_documents(schedule.pipeline_spec, settings)}
                return self._store("recurring_run", self.schedules, row)
            case "DELETE", "recurringruns", schedule_id if schedule_id in self.schedules:
                del self.schedules[schedule_id]
                return {}
            case _, "pipelines", _:
                return self._route_pipelines(request, identifier)
        return self._log(request)

    def _route_pipelines(self, request: Request, identifier: str) -> Any:
        pipeline_id, _, rest = identifier.partition("/")
        match request.method, identifier, rest:
            case "GET", "", "":
                return {"pipelines": self._list(self.pipelines, request)}
            case "POST", "", "":
                read_body(request.body, "V2beta1Pipeline")
                self._authorize(request.body.get("namespace", ""))
                return self._store("pipeline", self.pipelines, dict(request.body))
            case "POST", "upload_version", "":
                return self._upload(request)
            case "DELETE", _, version if (version_id := version.removeprefix("versions/")) in self.versions:
                return self.versions.pop(version_id)
            case "DELETE", _, "" if pipeline_id in self.pipelines:
                return self.pipelines.pop(pipeline_id)
            case "GET", _, "versions" if pipeline_id in self.pipelines:
                rows = [row for row in self._list(self.versions, request) if row["pipeline_id"] == pipeline_id]
                return {"pipeline_versions": rows}
        if request.method == "GET" and rest.removeprefix("versions/") in self.versions:
            return self.versions[rest.removeprefix("versions/")]
        raise Refusal(404, "Not Found")

    def _health(self) -> dict[str, Any]:
        if self.ui:
            users = {"apiServerMultiUser": bool(self.namespace), "multi_user": bool(self.namespace)}
            return {"apiServerTagName": self.version, "apiServerReady": True, "frontendTagName": self.version, **users}
        users = {"multi_user": bool(self.namespace), "pipeline_store": "database"}
        return {"commit_sha": "1a2b3c", "tag_name": self.version, **users}

    def _log(self, request: Request) -> str:
        """Return a pod's log; the API sends status 200 before it looks for it."""
        parts = request.path.split("/")
        if self.ui and request.path == "/k8s/pod/logs":
            if request.query["podname"] not in self.logs:
                raise Refusal(404, "pod not found")
            return self.logs[request.query["podname"]]
        if not self.ui and request.path.startswith("/apis/v1alpha1/runs/") and parts[5:] == ["nodes", parts[6], "log"]:
            missing = f'BadRequestError: Failed to read logs for run {parts[4]}: pods "{parts[6]}" not found'
            return self.logs.get(parts[6], json.dumps({"error_message": missing, "error_details": missing}))
        raise Refusal(404, "Not Found")

    def _list(self, table: Mapping[str, dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        """Return the rows that a filter accepts; the server unquotes a filter once more than HTTP did."""
        if unknown := set(request.query) - {"page_token", "page_size", "sort_by", "namespace", "filter"}:
            raise Refusal(400, f"unknown query parameters {unknown}")
        if not request.path.endswith("/versions"):
            self._authorize(request.query.get("namespace", ""))
        predicates = json.loads(unquote_plus(request.query.get("filter", "%7B%7D"))).get("predicates", [])
        assert all(p["operation"] == "EQUALS" and p["key"] == "display_name" for p in predicates)
        return [row for row in table.values() if all(row["display_name"] == p["stringValue"] for p in predicates)]

    def _authorize(self, namespace: str) -> None:
        if self.namespace and not namespace:
            raise Refusal(400, "Invalid input error: a namespace cannot be empty in multi-user mode")
        if self.namespace and namespace != self.namespace:
            raise Refusal(403, f"User 'a@example.org' is not authorized with reason: {namespace} is not theirs")

    def _add_experiment(self, experiment: Any) -> dict[str, Any]:
        self._authorize(experiment.namespace or "")
        if any(row["display_name"] == experiment.display_name for row in self.experiments.values()):
            raise Refusal(409, f"Already exist error: experiment {experiment.display_name}")
        return self._store("experiment", self.experiments, {"display_name": experiment.display_name})

    def _check(self, kind: str, job: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return both documents of a run or a schedule, after the checks of the server."""
        if job.experiment_id not in self.experiments:
            raise Refusal(404, f"Experiment {job.experiment_id} not found")
        document = read_spec(job.pipeline_spec, MANIFEST[kind])
        settings = read_settings(job.pipeline_spec, self.unknown)
        check_arguments(document, job.runtime_config.parameters or {}, INPUTS[kind])
        check_task_settings(settings, self.unknown)
        return document, settings

    def _add_run(self, run: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        document, settings = self._check("run", run)
        created = {**body, "created_at": "2026-11-30T06:00:00Z", "state": "PENDING"}
        created["pipeline_spec"] = known_documents(run.pipeline_spec, settings)
        row = self._store("run", self.runs, created)
        self.settings[row.get("run_id", "")] = settings
        if type_errors(document):  # a driver refuses an argument
            self.states = ["FAILED"]
            self.nodes = [node("w", "root.check-data-driver", "FAILED")]
        return row

    def _store(self, kind: str, table: dict[str, dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
        identifier = f"{kind.replace('_', '-')}-{len(self.requests)}"
        table[identifier] = {f"{kind}_id": identifier, **row}
        return table[identifier]

    def _run(self, run_id: str) -> dict[str, Any]:
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if isinstance(state, int):
            raise Refusal(state, "no healthy upstream")
        self.runs[run_id]["state"] = state
        ended = state in ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
        times = {"finished_at": "2026-11-30T06:10:00Z" if ended else "1970-01-01T00:00:00Z"}
        details = {"run_details": {"task_details": self.nodes}} if self.nodes else {}
        return {**self.runs[run_id], **times, **details}

    def _terminate(self, run_id: str) -> dict[str, Any]:
        if self.runs[run_id]["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            text = f"Invalid input error: Failed to terminate a run {run_id}. Row not found"
            raise Refusal(400, f"Failed to terminate a run: Failed to terminate run {run_id}: {text}")
        self.states = ["CANCELING", "FAILED"]
        return {}

    def _upload(self, request: Request) -> dict[str, Any]:
        """Add a version: its file is the only part of the form."""
        pipeline_id, name = request.query["pipelineid"], request.query["name"]
        if pipeline_id not in self.pipelines:
            raise Refusal(400, "Failed to create a pipeline version")
        if any((row["pipeline_id"], row["display_name"]) == (pipeline_id, name) for row in self.versions.values()):
            raise Refusal(409, "Failed to create a pipeline version")
        documents = list(yaml.safe_load_all(request.body.split("\r\n\r\n", 1)[1].rsplit("\r\n--", 1)[0]))
        try:
            read_spec(documents[0], "")
        except Refusal as refusal:
            raise Refusal(400, "unknown template format") from refusal
        row = {"pipeline_id": pipeline_id, "display_name": name, "description": request.query.get("description", "")}
        spec = dict(zip(("pipeline_spec", "platform_spec"), documents))
        spec = known_documents(spec, read_settings(spec, self.unknown))
        return self._store("pipeline_version", self.versions, {**row, "pipeline_spec": spec})


@contextmanager
def kfp_server(certificate: Path | None = None) -> Iterator[KfpServer]:
    """Serve on a free port of 127.0.0.1 until the block ends; with a certificate, over TLS."""
    server = KfpServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(target.query).items()}
            headers = {key.title(): value for key, value in self.headers.items()}
            form = headers.get("Content-Type", "").startswith("multipart/form-data")
            content = body.decode() if form else json.loads(body) if body else None
            request = Request(self.command, target.path, query, headers, content)
            status, sent, text = server.answer(request)
            self.send_response(status)
            for key, value in {**sent, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        server.url = f"http{'s' if certificate else ''}://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()
