"""Translate the refusals and failures of a Kubeflow Pipelines server into errors of one line."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aupair.errors import AupairError, AuthError, RejectedError, UnreachableError
from aupair.kubeflow.compat import UNREADABLE_FILE, find_unknown_field

if TYPE_CHECKING:
    from aupair.kubeflow.server import Server

TOKEN = "KFP_TOKEN"
COOKIE = "KFP_COOKIE"
HOW_TO_LOG_IN = f"pass --token-file FILE, or set {TOKEN} (or {COOKIE} to a browser's session)"
HEALTH = "read the server's health"
_SHOWN_CHARACTERS = 300


class NotReadyError(RejectedError):
    """The server, or a proxy in front of it, cannot answer at the moment."""


class ExistsError(RejectedError):
    """The server already has something of that name."""


@contextmanager
def kfp_errors(server: "Server", action: str) -> Iterator[None]:
    """Translate exceptions of the KFP client inside the block.

    Args:
        action: what is attempted, as a verb phrase: "start the run".

    Raises:
        AuthError: the server answers with a login page, or refuses these credentials.
        UnreachableError: there is no answer.
        RejectedError: any other refusal; NotReadyError or ExistsError for these two kinds.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError, SSLError

    try:
        yield
    except ApiException as error:
        body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
        error.body = server.scrub(body)  # a traceback shows it
        raise _refusal(server, action, int(error.status or 0), error.headers or {}, error.body) from error
    except HTTPError as error:
        reason = getattr(error, "reason", None) or error
        todo = "check http or https in --host, the network or VPN, HTTPS_PROXY, and a tunnel (kubectl port-forward)"
        if isinstance(reason, SSLError):
            todo = (
                "check http or https in --host, or give --ca-cert FILE with the authority that signed its certificate"
            )
        raise UnreachableError(
            "no connection", where=server.host, got=server.scrub(_innermost_cause(reason)), todo=todo
        ) from error


def parse_answer(server: "Server", data: bytes) -> object:
    """Return an answer's JSON.

    Raises:
        AuthError: it is none; usually a login page that came with status 200.
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise _login_page(server, "HTML" if b"<" in data[:100] else "no JSON") from error


def _refusal(server: "Server", action: str, status: int, headers: Mapping[str, str], body: str) -> AupairError:
    """Return the error for an HTTP status that is no success."""
    message, where = _message(body), server.host
    got = f"HTTP {status}" + (f": {message}" if message else "")
    if status in (301, 302, 303, 307, 308):
        return _redirect(server, headers.get("location", ""))
    if status == 401 or (status == 403 and action == HEALTH):
        return AuthError("the server does not accept these credentials", where=where, got=got, todo=HOW_TO_LOG_IN)
    if status == 403:
        todo = "check --namespace, and that your account may edit there (role kubeflow-edit)"
        return AuthError(f"not allowed to {action}", where=where, got=got, todo=todo)
    if status == 404 and action == HEALTH:
        todo = "behind Kubeflow's gateway the host ends in /pipeline"
        return RejectedError("no Kubeflow Pipelines API here", where=where, got=got, todo=todo)
    if status in (429, 502, 503, 504):
        return NotReadyError("the server is not ready", where=where, got=got, todo="try again")
    if unknown := find_unknown_field(message):
        name, todo = unknown
        return RejectedError(f"the server is older than the file: it does not know {name}", where=where, todo=todo)
    if any(words in message for words in UNREADABLE_FILE):
        todo = "it may be older than the SDK: try `aupair pipeline doctor FILE.yaml`"
        return RejectedError("the server cannot read the compiled file", where=where, got=got, todo=todo)
    kind = ExistsError if status == 409 else RejectedError
    return kind(f"the server refused to {action}", where=where, got=got)


def _redirect(server: "Server", location: str) -> AupairError:
    """Return the error for a redirect, which leads either to the https address of the server or to a login page."""
    target, host = urlsplit(location), urlsplit(server.host)
    if target.netloc == host.netloc and target.scheme == "https" != host.scheme:
        return RejectedError("the server wants https", where=server.host, todo=f"give --host https{server.host[4:]}")
    return _login_page(server, f"a redirect to {target.scheme}://{target.netloc}{target.path}")


def _login_page(server: "Server", got: str) -> AuthError:
    return AuthError("this is a login page, not the API", where=server.host, got=got, todo=HOW_TO_LOG_IN)


def _message(body: str) -> str:
    """Return the server's own message in one line.

    A long message is shortened in the middle: its end is kept, since servers written in Go put the cause there.
    """
    try:
        answer = json.loads(body)
        text = " ".join(str(answer.get("message") or answer.get("error") or "").split())
    except (ValueError, AttributeError):
        return ""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[: _SHOWN_CHARACTERS // 3]} ... {text[-_SHOWN_CHARACTERS * 2 // 3 :]}"


def _innermost_cause(error: BaseException) -> str:
    """Return the text of the exception at the bottom of the chain, which is the most specific."""
    nested = next((value for value in error.args if isinstance(value, BaseException)), None)
    if deeper := error.__cause__ or error.__context__ or nested:
        return _innermost_cause(deeper)
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error)[:_SHOWN_CHARACTERS]
