"""The connection to a Kubeflow Pipelines server: its address, the credentials, and a `kfp.Client` made safe.

By itself `kfp.Client` takes a login page for an answer whose fields are all None, follows redirects, waits for ever for a
server that is silent, and reads the namespace and a cookie from a file in the home folder.
"""

import os
import ssl
import urllib.request
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aupair.errors import ParamsError, RejectedError
from aupair.kubeflow.server_errors import COOKIE, HEALTH, HOW_TO_LOG_IN, TOKEN, NotReadyError, kfp_errors, parse_answer

if TYPE_CHECKING:
    import kfp
    from kfp_server_api.rest import RESTClientObject

UI = "KF_PIPELINES_UI_ENDPOINT"
POD_TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"
"""The SDK's names for the address of the user interface, and for the file of a pod's token."""

_POD_TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
POD_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
PROBE_SECONDS = 10.0


class NoHostError(ParamsError):
    """No server is named, and this is no pod of a cluster."""


@dataclass(frozen=True)
class Server:
    """Address of a server, and the credentials for it.

    Attributes:
        host: http(s)://..., without a slash at its end; `{host}/apis/v2beta1/...` is the API.
        namespace: the user's, on a server for several users.
        token_file: read anew for every request, since a pod's token is replaced every hour.
        ca: certificate authorities to trust, PEM; else those of `certifi`.
        ui: address of the user interface; empty if unknown.
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
            ParamsError: its file cannot be read, or is empty.
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
    """Return the server that was named; in a pod of Kubeflow, by default, the one of its cluster.

    Raises:
        NoHostError: neither.
        ParamsError: the host is no URL, or a file is missing.
    """
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ParamsError("--ca-cert", got=ca, expected="a file of certificates (PEM)") from error
    token, cookie = (_check_secret(os.environ.get(name, "").strip(), name) for name in (TOKEN, COOKIE))
    if not host:
        pod = Path(os.environ.get(POD_TOKEN, _POD_TOKEN_FILE))
        if not pod.is_file():
            todo = "give --host https://HOST/pipeline, or set KFP_ENDPOINT"
            raise NoHostError("which Kubeflow Pipelines server?", got="no --host, and no pod of a cluster", todo=todo)
        if not namespace and _POD_NAMESPACE_FILE.is_file():
            namespace = _POD_NAMESPACE_FILE.read_text().strip()
        token_file = token_file or (None if token else pod)
        return Server(POD_HOST, namespace, token, token_file, cookie, ca, os.environ.get(UI, "").rstrip("/"))
    host = _check_host(host)
    return Server(host, namespace, token, token_file, cookie, ca, os.environ.get(UI, host).rstrip("/"))


def _check_secret(secret: str, where: str) -> str:
    """Return a secret that may stand in an HTTP header; the HTTP library's own complaint would show it.

    Raises:
        ParamsError: it may not; the message does not show it.
    """
    if not secret.isprintable() or not secret.isascii():
        raise ParamsError("no usable secret", where=where, got="a line break or a character that no header may hold")
    return secret


def _check_host(host: str) -> str:
    """Return a host without the fragment that a browser shows behind it.

    Raises:
        ParamsError: it is no URL of a server, or holds a user.
    """
    host = host.partition("#")[0].rstrip("/")
    expected = "http(s)://HOST, behind Kubeflow's gateway https://HOST/pipeline"
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError as error:
        raise ParamsError("--host", got=host, expected=expected) from error
    if parts.username or parts.password:
        raise ParamsError("--host", got="a URL with a user in it", todo=HOW_TO_LOG_IN)
    if not usable:
        raise ParamsError("--host", got=host, expected=expected)
    return host


class Connection:
    """A connection to a server that has proven to be a Kubeflow Pipelines API.

    Attributes:
        client: the SDK's client; wrap its calls in `kfp_errors`.
        version: the server's, such as 2.17.0; empty if it does not tell.
        multi_user: whether everything belongs to a namespace.

    Raises:
        AupairError: the server does not answer, or refuses; see `kfp_errors`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        http_client = _rest_client(server)
        self.version, self.multi_user = _probe(server, http_client)
        self.client = _kfp_client(server, http_client)

    @property
    def namespace(self) -> str | None:
        """The namespace for requests; None on a server for one user, which has none.

        Raises:
            ParamsError: the server is for several users, and no namespace was given.
        """
        if not self.multi_user:
            return None
        if not self.server.namespace:
            todo = "give --namespace, or set KFP_NAMESPACE: your profile's name in Kubeflow"
            raise ParamsError("a namespace is needed", where=self.server.host, got="a server for many users", todo=todo)
        return self.server.namespace


def _rest_client(server: Server) -> "RESTClientObject":
    """Return the HTTP side of the SDK: no redirects, a time limit for each request, and JSON answers only."""
    from kfp_server_api import Configuration
    from kfp_server_api.rest import RESTClientObject
    from urllib3 import Retry

    class JsonClient(RESTClientObject):
        def request(self, *args: Any, **options: Any) -> Any:
            options["_request_timeout"] = options.get("_request_timeout") or (_CONNECT_SECONDS, _READ_SECONDS)
            response = super().request(*args, **options)
            parse_answer(server, response.data)
            return response

    config = Configuration(host=server.host)
    config.retries = Retry(total=1, read=False, redirect=False, respect_retry_after_header=False, backoff_factor=0.2)
    config.ssl_ca_cert = str(server.ca) if server.ca else None
    if not urllib.request.proxy_bypass(urlsplit(server.host).netloc):
        config.proxy = urllib.request.getproxies().get(urlsplit(server.host).scheme)
    return JsonClient(config)


def _probe(server: Server, http_client: "RESTClientObject") -> tuple[str, bool]:
    """Ask the server for its version (empty if unknown) and whether it serves several users.

    The answer comes from the API itself or from the user interface, which forwards requests to the API.
    """
    token = server.current_token()
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    headers |= {"Cookie": server.cookie} if server.cookie else {}
    limits = (_CONNECT_SECONDS, PROBE_SECONDS)
    with kfp_errors(server, HEALTH):
        answer = http_client.request(
            "GET", f"{server.host}/apis/v2beta1/healthz", headers=headers, _request_timeout=limits
        )
    parsed = parse_answer(server, answer.data)
    health = parsed if isinstance(parsed, dict) else {}
    if health.get("apiServerReady") is False:
        raise NotReadyError("the API behind the user interface does not answer", where=server.host, todo="try again")
    if not {"multi_user", "tag_name", "apiServerReady"} & set(health):
        got = f"JSON with {', '.join(health) or 'nothing in it'}"
        raise RejectedError("no Kubeflow Pipelines API here", where=server.host, got=got[:100], todo="check --host")
    version = str(health.get("tag_name") or health.get("apiServerTagName") or "")
    multi_user = bool(health.get("multi_user") or health.get("apiServerMultiUser"))
    return "" if version == "unknown" else version, multi_user


def _kfp_client(server: Server, http_client: "RESTClientObject") -> "kfp.Client":
    """Return the SDK's client on top of our HTTP client."""
    import kfp
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Token(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = server.current_token()

    class Client(kfp.Client):
        def _load_context_setting_or_default(self) -> None:  # from a file in the home folder
            self._context_setting = {"namespace": ""}

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:  # the probe has been made
            return self.api_models.V2beta1GetHealthzResponse(multi_user=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with Kubeflow Pipelines v2"
        credentials = Token() if server.current_token() else None
        client = Client(server.host, credentials=credentials, cookies=server.cookie, ui_host=server.ui or None)
    client.runs.api_client.rest_client = http_client  # all services share one API client
    return client
