"""The way to a KFP API server: where it is, who we are, and one line of ours for each way in which it says no.

The SDK's generated client (kfp_server_api) is used without `kfp.Client` above it, which takes namespace and cookies from
a file in the home folder, prints links, takes a login page for an empty answer and never sees that a run was cancelled.
"""

import json
import os
import ssl
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aupair.errors import ParamsError, RejectedError
from aupair.kubeflow.refusals import COOKIE, HEALTH, SHOW_TOKEN, TOKEN, NotReadyError, login_page, refused, told

if TYPE_CHECKING:
    from kfp_server_api import ApiClient, Configuration

UI = "KF_PIPELINES_UI_ENDPOINT"
POD_TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"
"""The SDK's names for the address of the user interface, and for the token that a pod is given."""

POD_TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
POD_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
PROBE_SECONDS = 10.0


class NoHostError(ParamsError):
    """Nothing says where the server is."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and who we are.

    Attributes:
        host: http(s)://..., without a slash at its end; `{host}/apis/v2beta1/...` is the API.
        namespace: the user's, on a server with several users.
        token_file: read anew for every request, since a pod's token is replaced every hour.
        ca: certificate authorities to trust, PEM; else those of `certifi`.
        ui: where a browser finds the runs; empty where that is not known.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    cookie: str = field(default="", repr=False)
    ca: Path | None = None
    ui: str = ""

    def credential(self) -> str:
        """Give the token as it is now; empty where there is none.

        Raises:
            ParamsError: its file cannot be read, or is empty.
        """
        if self.token_file is None:
            return plain(self.token, TOKEN)
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ParamsError("no token", where=self.token_file, got=type(error).__name__) from error
        if not token:
            raise ParamsError("no token", where=self.token_file, got="an empty file")
        return plain(token, str(self.token_file))

    def scrub(self, text: str) -> str:
        """Take the credentials out of what is shown."""
        for secret in filter(None, (self.credential(), self.cookie)):
            text = text.replace(secret, "***")
        return text


def find(host: str, namespace: str = "", token_file: Path | None = None, ca: Path | None = None) -> Server:
    """Find the server: the one that was named, or in a pod of Kubeflow the one of its cluster.

    Raises:
        NoHostError: neither.
        ParamsError: the host is no URL, or a file is missing.
    """
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ParamsError("--ca-cert", got=ca, expected="a file of certificates (PEM)") from error
    token, cookie = (plain(os.environ.get(name, "").strip(), name) for name in (TOKEN, COOKIE))
    if not host:
        pod = Path(os.environ.get(POD_TOKEN, POD_TOKEN_FILE))
        if not pod.is_file():
            todo = "give --host https://HOST/pipeline, or set KFP_ENDPOINT"
            raise NoHostError("which Kubeflow Pipelines server?", got="no --host, and no pod of a cluster", todo=todo)
        own = POD_NAMESPACE_FILE.read_text().strip() if POD_NAMESPACE_FILE.is_file() else ""
        found = token_file or (None if token else pod)
        return Server(POD_HOST, namespace or own, token, found, cookie, ca, os.environ.get(UI, "").rstrip("/"))
    host = _checked(host)
    return Server(host, namespace, token, token_file, cookie, ca, os.environ.get(UI, host).rstrip("/"))


def plain(secret: str, where: str) -> str:
    """Give a secret that can stand in a header; a library's own complaint would show it.

    Raises:
        ParamsError: it cannot; it is not shown.
    """
    if not secret.isprintable() or not secret.isascii():
        raise ParamsError("no usable secret", where=where, got="a line break or a character that no header may hold")
    return secret


def _checked(host: str) -> str:
    """Give the host without what people paste with it from their browser."""
    host = host.partition("#")[0].rstrip("/")
    expected = "http(s)://HOST, behind Kubeflow's gateway https://HOST/pipeline"
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError as error:
        raise ParamsError("--host", got=host, expected=expected) from error
    if parts.username or parts.password:
        raise ParamsError("--host", got="a URL with a user in it", todo=SHOW_TOKEN)
    if not usable:
        raise ParamsError("--host", got=host, expected=expected)
    return host


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    Attributes:
        version: such as 2.17.0; empty where it does not say.
        multi_user: whether everything belongs to a namespace.
    """

    version: str
    multi_user: bool


class Kfp:
    """A server that has answered.

    Args:
        server: where it is.

    Raises:
        AupairError: it has not; see `told`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        server.credential()
        self._client = _client(server)
        self.health = _probe(server, self._client)

    @property
    def namespace(self) -> str:
        """The namespace to ask for; empty on a server with one user, which knows none.

        Raises:
            ParamsError: the server has several users, and none was named.
        """
        if not self.health.multi_user:
            return ""
        if not self.server.namespace:
            todo = "give --namespace, or set KFP_NAMESPACE: your profile's name in Kubeflow"
            raise ParamsError("a namespace is needed", where=self.server.host, got="a server for many users", todo=todo)
        return self.server.namespace

    @cached_property
    def experiments(self) -> Any:
        """The calls about experiments."""
        from kfp_server_api import ExperimentServiceApi

        return ExperimentServiceApi(self._client)

    @cached_property
    def runs(self) -> Any:
        """The calls about runs."""
        from kfp_server_api import RunServiceApi

        return RunServiceApi(self._client)

    @cached_property
    def schedules(self) -> Any:
        """The calls about recurring runs."""
        from kfp_server_api import RecurringRunServiceApi

        return RecurringRunServiceApi(self._client)


def _client(server: Server) -> "ApiClient":
    """Make a client that follows no redirect, waits no longer than it must, and takes nothing but JSON for an answer."""
    from kfp_server_api import ApiClient

    class Client(ApiClient):
        def request(self, *given: Any, **named: Any) -> Any:
            named["_request_timeout"] = (CONNECT_SECONDS, READ_SECONDS)
            return super().request(*given, **named)

        def deserialize(self, response: Any, response_type: Any) -> Any:
            try:
                json.loads(response.data)
            except ValueError as error:
                raise login_page(server, "HTML" if "<" in response.data[:100] else "no JSON") from error
            return super().deserialize(response, response_type)

    return Client(_configuration(server), cookie=server.cookie or None)


def _configuration(server: Server) -> "Configuration":
    from kfp_server_api import Configuration
    from urllib3 import Retry

    config = Configuration(host=server.host)
    config.retries = Retry(total=2, redirect=False, backoff_factor=0.2)
    config.ssl_ca_cert = str(server.ca) if server.ca else None
    if not urllib.request.proxy_bypass(urlsplit(server.host).netloc):
        config.proxy = urllib.request.getproxies().get(urlsplit(server.host).scheme)
    if token := server.credential():
        config.api_key["authorization"] = token  # without one the client does not even ask its hook
        config.api_key_prefix["authorization"] = "Bearer"
        config.refresh_api_key_hook = lambda own: own.api_key.update(authorization=server.credential())
    return config


def _probe(server: Server, client: "ApiClient") -> Health:
    """Ask whether a KFP API answers here at all; a proxy with a login page looks like an empty server otherwise."""
    from urllib3 import Timeout

    authorization = client.configuration.get_api_key_with_prefix("authorization")
    headers = {"Accept": "application/json", "Authorization": authorization or "", "Cookie": server.cookie}
    with told(server, HEALTH):
        answer = client.rest_client.pool_manager.request(
            "GET",
            f"{server.host}/apis/v2beta1/healthz",
            headers={key: value for key, value in headers.items() if value},
            redirect=False,
            retries=False,
            timeout=Timeout(connect=CONNECT_SECONDS, read=PROBE_SECONDS),
        )
    body = answer.data.decode(errors="replace")
    if answer.status != 200:
        raise refused(server, HEALTH, answer.status, answer.headers, body)
    try:
        said = json.loads(body)
    except ValueError as error:
        raise login_page(server, "HTML" if "<" in body[:100] else "no JSON") from error
    return _health(server, said if isinstance(said, dict) else {})


def _health(server: Server, said: dict[str, Any]) -> Health:
    """Read what the API says, or the user interface, which stands before it and has names of its own."""
    if said.get("apiServerReady") is False:
        raise NotReadyError("the API behind the user interface does not answer", where=server.host, todo="try again")
    if not {"multi_user", "tag_name", "apiServerReady"} & set(said):
        got = f"JSON with {', '.join(said) or 'nothing in it'}"
        raise RejectedError("no Kubeflow Pipelines API here", where=server.host, got=got[:100], todo="check --host")
    version = str(said.get("tag_name") or said.get("apiServerTagName") or "")
    several = bool(said.get("multi_user") or said.get("apiServerMultiUser"))
    return Health("" if version == "unknown" else version, several)
