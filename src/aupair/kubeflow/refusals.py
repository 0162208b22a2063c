"""Each way in which a server says no, as one line of ours: what happened, in its words, and what to do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

from aupair.errors import AupairError, AuthError, RejectedError, UnreachableError
from aupair.kubeflow.skew import MISREAD, unknown_field

TOKEN = "KFP_TOKEN"
COOKIE = "KFP_COOKIE"
SHOW_TOKEN = f"pass --token-file FILE, or set {TOKEN} (or {COOKIE}, where a browser's session is what counts)"
HEALTH = "its health"
SHOWN = 300
"""Characters of a server's own words that are shown."""


class Asked(Protocol):
    """What is used of `api.Server`."""

    @property
    def host(self) -> str:
        """Its address."""

    def scrub(self, text: str) -> str:
        """Take the credentials out of a text."""


class NotReadyError(RejectedError):
    """The server, or what stands before it, asks to come back later."""


class ExistsError(RejectedError):
    """The server has something of that name already."""


@contextmanager
def told(server: Asked, what: str) -> Iterator[None]:
    """Turn what the client raises inside into one line about `what`.

    Raises:
        AuthError: a login page, or a refusal for who we are.
        UnreachableError: name, network, certificate, or no answer in time.
        RejectedError: any other refusal; NotReadyError for one that passes.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise refused(server, what, int(error.status or 0), error.headers or {}, error.body or "") from error
    except HTTPError as error:
        raise _unreachable(server, getattr(error, "reason", None) or error) from error


def refused(server: Asked, what: str, status: int, headers: Mapping[str, str], body: str) -> AupairError:
    """Give the error of ours for a status that is no success."""
    got = f"HTTP {status}" + (f": {said}" if (said := server.scrub(_said(body))) else "")
    if status in (301, 302, 303, 307, 308):
        return _redirected(server, headers)
    if status == 401:
        return AuthError("the server does not know who you are", where=server.host, got=got, todo=SHOW_TOKEN)
    if status == 403 and what == HEALTH:
        return AuthError("the server lets nobody in like this", where=server.host, got=got, todo=SHOW_TOKEN)
    if status == 403:
        todo = "check --namespace, and that your account may edit there (role kubeflow-edit)"
        return AuthError(f"not allowed: {what}", where=server.host, got=got, todo=todo)
    if status == 404 and what == HEALTH:
        todo = "behind Kubeflow's gateway the host ends in /pipeline"
        return RejectedError("no Kubeflow Pipelines API here", where=server.host, got="HTTP 404", todo=todo)
    if field := unknown_field(got):
        name, todo = field
        what = f"the server is older than the file: it does not know {name}"
        return RejectedError(what, where=server.host, got=f"HTTP {status}", todo=todo)
    if any(words in got for words in MISREAD):
        todo = "it may be older than the SDK: ask `aupair pipeline doctor FILE.yaml`"
        return RejectedError("the server cannot read the compiled file", where=server.host, got=got, todo=todo)
    if status in (429, 502, 503, 504):
        return NotReadyError("the server is not ready", where=server.host, got=got, todo="try again")
    kind = ExistsError if status == 409 else RejectedError
    return kind(f"the server refuses: {what}", where=server.host, got=got)


def _redirected(server: Asked, headers: Mapping[str, str]) -> AupairError:
    """Tell a server that wants https from one that wants a login."""
    target = urlsplit(headers.get("location", ""))
    if target.netloc == urlsplit(server.host).netloc and target.scheme == "https" != urlsplit(server.host).scheme:
        return RejectedError("the server wants https", where=server.host, todo=f"give --host https{server.host[4:]}")
    return login_page(server, f"a redirect to {target.scheme}://{target.netloc}{target.path}")


def login_page(server: Asked, got: str) -> AuthError:
    return AuthError("this is a login page, not the API", where=server.host, got=got, todo=SHOW_TOKEN)


def _said(body: str) -> str:
    """Give the server's own words in one line: the start, and the end, where Go puts the cause."""
    try:
        said = json.loads(body)
        text = " ".join(str(said.get("message") or said.get("error") or "").split())
    except (ValueError, AttributeError):
        return ""
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 3]} ... {text[-SHOWN * 2 // 3 :]}"


def _unreachable(server: Asked, error: Exception) -> AupairError:
    """Give the error of ours for a server that gave no answer."""
    from urllib3 import exceptions as http

    said = server.scrub(_cause(error))
    network = "check --host, and the network or VPN"
    if isinstance(error, http.NameResolutionError):
        return UnreachableError("no such host", where=server.host, todo=network)
    if isinstance(error, http.SSLError):
        return _untrusted(server, said)
    if isinstance(error, http.ProxyError):
        return UnreachableError("the proxy does not answer", where=server.host, got=said, todo="check HTTPS_PROXY")
    if isinstance(error, http.NewConnectionError):
        todo = "start it, or its tunnel: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
        return UnreachableError("no connection", where=server.host, got=said, todo=todo)
    if isinstance(error, http.TimeoutError):
        return UnreachableError("no answer in time", where=server.host, todo=network)
    return UnreachableError("the connection broke", where=server.host, got=said, todo="check http or https in --host")


def _untrusted(server: Asked, said: str) -> UnreachableError:
    """Tell a certificate that nobody vouches for from one of another host, and from a server without TLS."""
    if "wrong version" in said.lower() or "record layer" in said.lower():
        return UnreachableError("the server speaks no TLS", where=server.host, todo="give --host http://...")
    todo = "give --ca-cert FILE with the authority that signed its certificate"
    if "mismatch" in said:
        todo = "name the host as its certificate does"
    return UnreachableError("no trusted TLS connection", where=server.host, got=said, todo=todo)


def _cause(error: BaseException) -> str:
    """Give the words of the exception at the bottom, which says most."""
    inner = next((each for each in error.args if isinstance(each, BaseException)), None)
    if deeper := error.__cause__ or error.__context__ or inner:
        return _cause(deeper)
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error)[:SHOWN]
