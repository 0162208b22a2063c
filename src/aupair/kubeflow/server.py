"""The connection to a Kubeflow Pipelines server: its address, the credentials, and a client with timeouts and checks.

The client is `kfp_server_api`, on which `kfp.Client` is built. Without the checks it would parse a login page as an answer
whose fields are all None, follow redirects, and wait forever for a server that does not answer.
"""

import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aupair.errors import ParamsError, RejectedError
from aupair.kubeflow.compat import parse_version
from aupair.kubeflow.server_errors import HOW_TO_LOG_IN, NotReadyError, check_json, check_log, kfp_errors

if TYPE_CHECKING:
    from kfp_server_api import ApiClient

_POD_TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POD_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_PROBE_SECONDS = 10.0


class NoHostError(ParamsError):
    """No server was specified, and this process does not run in a pod of Kubeflow, which has a default."""


@dataclass(frozen=True)
class Server:
    """The address of a server, and the credentials for it.

    Attributes:
        host: http(s)://..., without a slash at its end; `{host}/apis/v2beta1/...` is the API.
        namespace: the user's namespace, on a multi-user server.
        token_file: the file with the token, read again for every request, since a pod's token is replaced every hour.
        ca: certificate authorities to trust, PEM; else those of `certifi`.
        ui: address of the web UI; empty if unknown.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    cookie: str = field(default="", repr=False)
    ca: Path | None = None
    ui: str = ""

    def current_token(self) -> str:
        """Return the token; empty if there is none.

        Raises:
            ParamsError: the token's file cannot be read, or is empty.
        """
        if self.token_file is None:
            return self.token
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ParamsError("no token", where=self.token_file, got=type(error).__name__) from error
        if not token:
            raise ParamsError("no token", where=self.token_file, got="an empty file")
        return _check_secret(token, str(self.token_file))

    def scrub(self, text: str) -> str:
        """Return a text in which the token and the cookie are replaced by ***."""
        for secret in filter(None, (self.current_token(), self.cookie)):
            text = text.replace(secret, "***")
        return text


def find_server(host: str, namespace: str = "", token_file: Path | None = None, ca: Path | None = None) -> Server:
    """Return the server at `host`; if it is empty, in a pod of Kubeflow, the server of its cluster.

    Raises:
        NoHostError: `host` is empty, and this is not a pod of Kubeflow.
        ParamsError: the host is not a URL, or a file is missing.
    """
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ParamsError("--ca-cert cannot be read", got=ca, expected="a file of certificates (PEM)") from error
    token, cookie = (_check_secret(os.environ.get(name, "").strip(), name) for name in ("KFP_TOKEN", "KFP_COOKIE"))
    if host:
        host = ui = _check_host(host)
    else:
        host, ui = _POD_HOST, ""
        pod_token = _pod_token()
        if pod_token is None:
            todo = "pass --host https://HOST/pipeline, or set KFP_ENDPOINT"
            raise NoHostError(
                "no Kubeflow Pipelines server is given", got="no --host, and no pod of a cluster", todo=todo
            )
        namespace = namespace or pod_namespace()
        token_file = token_file or (None if token else pod_token)
    ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT", ui).rstrip("/")
    return Server(host, namespace, token, token_file, cookie, ca, ui)


def server_of_this_pod() -> Server | None:
    """Return the server that runs the pipeline of which this process is a task; None outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return None
    return Server(_POD_HOST, pod_namespace(), token_file=_pod_token())


def _pod_token() -> Path | None:
    """Return the file with this pod's token for the server; None if it has none."""
    path = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _POD_TOKEN_FILE))
    return path if path.is_file() else None


def pod_namespace() -> str:
    """Return the namespace of this pod; empty if there is none."""
    return _POD_NAMESPACE_FILE.read_text().strip() if _POD_NAMESPACE_FILE.is_file() else ""


def _check_secret(secret: str, where: str) -> str:
    """Return a secret after a check that it is allowed in an HTTP header; the HTTP library's own error would show it.

    Raises:
        ParamsError: the secret is not allowed; the message does not show it.
    """
    if not secret.isprintable() or not secret.isascii():
        raise ParamsError(
            "the secret cannot be used", where=where, got="a line break or a character that is not allowed in a header"
        )
    return secret


def _check_host(host: str) -> str:
    """Return a server's address without a fragment, which an address copied from a browser has.

    Raises:
        ParamsError: the address is not the URL of a server, or contains a user.
    """
    host = host.partition("#")[0].rstrip("/")
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        usable = False
    if "@" in host:
        raise ParamsError("--host must not contain a user", got="a URL with a user in it", todo=HOW_TO_LOG_IN)
    if not usable:
        expected = "http(s)://HOST, behind Kubeflow's gateway https://HOST/pipeline"
        raise ParamsError("--host is not the address of a server", got=host, expected=expected)
    return host


class Connection:
    """A connection to a server, after a check that it is a Kubeflow Pipelines API.

    Attributes:
        experiments, runs, schedules, pipelines, uploads: the SDK's services; wrap their calls in `kfp_errors`.
        version: the server's version, such as 2.17.0; empty if neither the server nor the user states it.
        multi_user: whether every object belongs to a namespace.

    Args:
        version: the version that the user states, for a server that does not report it.

    Raises:
        AupairError: the server does not answer, or rejects the request; see `kfp_errors`.
        ParamsError: `version` is not a version.
    """

    def __init__(self, server: Server, version: str = "") -> None:
        import kfp_server_api

        if version and not parse_version(version):
            raise ParamsError("--server-version is not a version", got=version, expected="a version such as 2.17")
        self.server = server
        self._api = api = _api_client(server)
        health = _probe(server, api)
        self._behind_ui = "apiServerReady" in health
        answer = str(health.get("tag_name") or health.get("apiServerTagName") or "")
        self.version = answer if parse_version(answer) else version
        self.multi_user = bool(health.get("multi_user") or health.get("apiServerMultiUser"))
        self.experiments = kfp_server_api.ExperimentServiceApi(api)
        self.runs = kfp_server_api.RunServiceApi(api)
        self.schedules = kfp_server_api.RecurringRunServiceApi(api)
        self.pipelines = kfp_server_api.PipelineServiceApi(api)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(api)

    @property
    def namespace(self) -> str | None:
        """Return the namespace for requests; None on a single-user server, which has none.

        Raises:
            ParamsError: the server is a multi-user server, and no namespace was given.
        """
        if not self.multi_user:
            return None
        if not self.server.namespace:
            todo = "pass --namespace, or set KFP_NAMESPACE: your profile's name in Kubeflow"
            raise ParamsError("a namespace is needed", where=self.server.host, got="a multi-user server", todo=todo)
        return self.server.namespace

    def read_log(self, run_id: str, pod: str, day: str) -> str:
        """Return the log of a pod of a run, from the API or from the web UI, depending on which of them the host is.

        Args:
            day: the date of the run's creation, such as 2026-11-30, with which the web UI looks up an archived log.

        Raises:
            RejectedError: there is no such log, or it no longer exists.
        """
        path, query = f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", []
        if self._behind_ui:  # the web UI forwards only paths of v1beta1 and v2beta1
            path, query = "/k8s/pod/logs", [("podname", pod), ("runid", run_id), ("createdat", day)]
            query += [("podnamespace", self.server.namespace)] if self.server.namespace else []
        action = f"read the log of pod {pod}"
        with kfp_errors(self.server, action):
            answer = self._api.call_api(
                path, "GET", query_params=query, auth_settings=["Bearer"],
                _return_http_data_only=True, _preload_content=False,
            )  # fmt: skip
            text = str(answer.data.decode(errors="replace"))
        check_log(self.server, action, text)
        return text


def _api_client(server: Server) -> "ApiClient":
    """Return the SDK's API client: no redirects, a time limit for each request, and JSON answers only."""
    from kfp_server_api import ApiClient, ApiException, Configuration
    from kfp_server_api.rest import RESTClientObject
    from urllib3 import Retry

    class JsonClient(RESTClientObject):
        def request(self, *args: Any, **options: Any) -> Any:
            options["_request_timeout"] = options.get("_request_timeout") or (_CONNECT_SECONDS, _READ_SECONDS)
            try:
                response = super().request(*args, **options)
            except ApiException as error:  # the SDK's caller of this method needs a body in UTF-8
                error.body = (error.body or b"").decode(errors="replace").encode()
                raise
            if options.get("_preload_content", True):
                check_json(server, response.data)
            return response

    def read_token(config: Configuration) -> None:
        config.api_key["authorization"] = server.current_token()

    config = Configuration(host=server.host)
    config.retries = Retry(total=1, read=False, redirect=False, respect_retry_after_header=False, backoff_factor=0.2)
    config.ssl_ca_cert = str(server.ca) if server.ca else None
    if not urllib.request.proxy_bypass(urlsplit(server.host).netloc):
        config.proxy = urllib.request.getproxies().get(urlsplit(server.host).scheme)
    if token := server.current_token():
        config.api_key, config.api_key_prefix = {"authorization": token}, {"authorization": "Bearer"}
        config.refresh_api_key_hook = read_token
    client = ApiClient(config, cookie=server.cookie)
    client.rest_client = JsonClient(config)
    return client


def _probe(server: Server, api: "ApiClient") -> Mapping[str, Any]:
    """Return the server's health as a plain dict, since the SDK's own model drops the version.

    The answer comes from the API itself or from the web UI, which forwards requests to the API.
    """
    with kfp_errors(server, "read the server's health"):
        answer = api.call_api(
            "/apis/v2beta1/healthz", "GET", response_type="object", auth_settings=["Bearer"],
            _return_http_data_only=True, _request_timeout=(_CONNECT_SECONDS, _PROBE_SECONDS),
        )  # fmt: skip
    health: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    if health.get("apiServerReady") is False:
        raise NotReadyError("the API behind the web UI does not answer", where=server.host, todo="try again")
    if not {"multi_user", "tag_name", "apiServerReady"} & set(health):
        got = f"JSON with {', '.join(health) or 'nothing in it'}"
        raise RejectedError(
            "the server is not a Kubeflow Pipelines API", where=server.host, got=got[:100], todo="check --host"
        )
    return health
