"""A stand-in for the API server of Kubeflow Pipelines on loopback: the real one needs Kubernetes, which tests don't have.

It serves the v2beta1 paths that a submission uses, and is strict where the server's own source is: it refuses, with the
server's messages, unknown keys in a body, documents that are no PipelineSpec or PlatformSpec, and arguments that the
pipeline does not take. Bodies are read by kfp_server_api's models and kfp's protocol buffers. It runs nothing: a run goes
through `states`, one at each request. It cannot show what only a cluster has (Argo, drivers, quotas, roles).
"""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

Answer = tuple[int, Mapping[str, str], str]

JSON = {"Content-Type": "application/json"}
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
        tasks: details of a finished run.
        unknown: keys that an older server does not know.
    """

    url: str = ""
    version: str = "2.17.0"
    namespace: str = ""
    token: str = ""
    always: Answer | None = None
    states: list[str | int] = field(default_factory=lambda: ["SUCCEEDED"])
    tasks: list[dict[str, Any]] = field(default_factory=list)
    unknown: frozenset[str] = frozenset()
    requests: list[Request] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)

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
            return 200, JSON, json.dumps(self._route(request))
        except Refusal as refusal:
            return refusal.status, JSON, json.dumps({"error": refusal.text, "message": refusal.text, "details": []})

    def _route(self, request: Request) -> Any:
        resource, _, identifier = request.path.removeprefix("/apis/v2beta1/").partition("/")
        match request.method, resource, identifier:
            case "GET", "healthz", "":
                return {"commit_sha": "1a2b3c", "tag_name": self.version, "multi_user": bool(self.namespace)}
            case "GET", "experiments", "":
                return {"experiments": self._list(self.experiments, request)}
            case "POST", "experiments", "":
                return self._add_experiment(read_body(request.body, "V2beta1Experiment"))
            case "POST", "runs", "":
                return self._add("run", self.runs, read_body(request.body, "V2beta1Run"), request.body)
            case "GET", "runs", run_id if run_id in self.runs:
                return self._run(run_id)
            case "GET", "recurringruns", "":
                return {"recurringRuns": self._list(self.schedules, request)}
            case "POST", "recurringruns", "":
                schedule = read_body(request.body, "V2beta1RecurringRun")
                check_trigger(schedule)
                return self._add("recurring_run", self.schedules, schedule, request.body)
            case "DELETE", "recurringruns", schedule_id if schedule_id in self.schedules:
                del self.schedules[schedule_id]
                return {}
        raise Refusal(404, "Not Found")

    def _list(self, table: Mapping[str, dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        """Return the rows that a filter accepts; the server unquotes a filter once more than HTTP did."""
        if unknown := set(request.query) - {"page_token", "page_size", "sort_by", "namespace", "filter"}:
            raise Refusal(400, f"unknown query parameters {unknown}")
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

    def _add(self, kind: str, table: dict[str, dict[str, Any]], parsed: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        if parsed.experiment_id not in self.experiments:
            raise Refusal(404, f"Experiment {parsed.experiment_id} not found")
        check_spec(parsed.pipeline_spec, parsed.runtime_config.parameters or {}, self.unknown)
        return self._store(kind, table, dict(body))

    def _store(self, kind: str, table: dict[str, dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
        identifier = f"{kind.replace('_', '-')}-{len(self.requests)}"
        table[identifier] = {f"{kind}_id": identifier, **row}
        return table[identifier]

    def _run(self, run_id: str) -> dict[str, Any]:
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if isinstance(state, int):
            raise Refusal(state, "no healthy upstream")
        details = {"run_details": {"task_details": self.tasks}} if state in ("FAILED", "CANCELED") else {}
        return {**self.runs[run_id], "state": state, **details}


class Refusal(Exception):
    """A failing HTTP status and its message."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def read_body(body: Any, model: str) -> Any:
    """Return a body as an object of the SDK's model; refuse keys that the model does not have."""
    import kfp_server_api

    unknown = set(body) - set(getattr(kfp_server_api, model).attribute_map.values())
    if unknown:
        raise Refusal(400, f'proto: (line 1:2): unknown field "{unknown.pop()}"')
    return kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(body)), model)


def check_trigger(schedule: Any) -> None:
    """Refuse a schedule without a time or a name."""
    cron = schedule.trigger.cron_schedule.cron if schedule.trigger.cron_schedule else None
    if not schedule.display_name or not (cron or int(schedule.trigger.periodic_schedule.interval_second)):
        raise Refusal(400, "Invalid input error: a recurring run needs a name and a trigger")


def check_spec(spec: Mapping[str, Any], arguments: Mapping[str, Any], unknown: frozenset[str]) -> None:
    """Read both documents by their protocol buffers, and check the arguments against the pipeline's inputs."""
    from google.protobuf import json_format
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    platform = spec.get("platform_spec", {}) if "pipeline_spec" in spec else {}
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    for key in unknown & set(kubernetes.get("pipelineConfig", {})):
        text = f'cannot unmarshal platform specific configs: proto:\xa0(line 1:9): unknown field "{key}"'
        raise Refusal(400, f"Failed to create a run: InvalidInputError: {text}: platform spec is invalid")
    try:
        parsed = json_format.ParseDict(spec.get("pipeline_spec", spec), pb.PipelineSpec())
        json_format.ParseDict(platform, pb.PlatformSpec())
        for options in kubernetes.get("deploymentSpec", {}).get("executors", {}).values():
            json_format.ParseDict(options, KubernetesExecutorConfig())
    except json_format.ParseError as error:
        raise Refusal(400, f"unknown template format: pipeline spec is invalid: {error}") from error
    inputs = parsed.root.input_definitions.parameters
    for name in set(arguments) - set(inputs):
        raise Refusal(400, f"unknown parameter {name}")
    for name, entry in inputs.items():
        if not entry.is_optional and name not in arguments:
            raise Refusal(
                400, f"parameter {name} is not optional, yet has neither default value nor user provided value"
            )


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
            request = Request(self.command, target.path, query, headers, json.loads(body) if body else None)
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


def self_signed(path: Path) -> Path:
    """Write a key and a self-signed certificate for 127.0.0.1 into one PEM file, and return it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
