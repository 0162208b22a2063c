"""Translation of rejected requests and failures of a Kubeflow Pipelines server into errors of one line."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aupair.errors import AupairError, AuthError, RejectedError, UnreachableError
from aupair.kubeflow.compat import advice_for_refusal

if TYPE_CHECKING:
    from aupair.kubeflow.server import Server

HOW_TO_LOG_IN = "pass --token-file FILE, or set KFP_TOKEN (or KFP_COOKIE to a browser's session)"
_SHOWN_CHARACTERS = 300


class NotReadyError(RejectedError):
    """A server, or a proxy in front of it, that cannot answer at the moment."""


@contextmanager
def kfp_errors(server: "Server", action: str) -> Iterator[None]:
    """Translate exceptions of the KFP client inside the block.

    Args:
        action: the attempted action as a verb phrase, such as "start the run".

    Raises:
        AuthError: the server answers with a login page, or rejects the credentials.
        UnreachableError: there is no answer.
        RejectedError: the request is rejected for another reason; NotReadyError for a transient one.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        body = server.scrub(error.body or "")
        raise _refusal(server, action, int(error.status or 0), error.headers or {}, body) from error
    except HTTPError as error:
        cause = str(getattr(error, "reason", None) or error).rpartition(": ")[2]  # the last part is the most specific
        todo = "check http or https in --host, the network, VPN, proxy or tunnel, and --ca-cert for a private authority"
        got = server.scrub(cause)[:_SHOWN_CHARACTERS]
        raise UnreachableError("the server cannot be reached", where=server.host, got=got, todo=todo) from error


def check_json(server: "Server", data: bytes) -> None:
    """Check that an answer is JSON.

    Raises:
        AuthError: the answer is not JSON; usually it is a login page that was sent with status 200.
    """
    try:
        json.loads(data)
    except ValueError as error:
        raise _login_page(server, "HTML" if b"<" in data[:100] else "an answer that is not JSON") from error


def check_log(server: "Server", action: str, text: str) -> None:
    """Check the text of a log, since the API sends error messages with status 200, too.

    Raises:
        RejectedError: the text is an error message.
        AuthError: the text is a login page.
    """
    if text.startswith('{"error_message"'):
        got = _message(text)
        raise RejectedError(f"the server refused to {action}", where=server.host, got=server.scrub(got))
    if text.lstrip()[:9].lower() in ("<!doctype", "<html>"):
        raise _login_page(server, "HTML")


def _refusal(server: "Server", action: str, status: int, headers: Mapping[str, str], body: str) -> AupairError:
    """Return the error for an HTTP status other than success."""
    message, where = _message(body), server.host
    got = f"HTTP {status}" + (f": {message}" if message else "")
    if status in (301, 302, 303, 307, 308):
        return _redirect(server, headers.get("location", ""))
    if status == 401:
        return AuthError("the server does not accept these credentials", where=where, got=got, todo=HOW_TO_LOG_IN)
    if status == 403:
        todo = f"check --namespace, and that you may edit there (role kubeflow-edit); or {HOW_TO_LOG_IN}"
        return AuthError(f"not allowed to {action}", where=where, got=got, todo=todo)
    if status in (429, 502, 503, 504):
        return NotReadyError("the server is not ready", where=where, got=got, todo="try again")
    gateway = (
        "check --host; behind Kubeflow's gateway it ends in /pipeline"
        if status == 404 and message in ("", "Not Found")
        else ""
    )
    todo = advice_for_refusal(message) or gateway
    return RejectedError(f"the server refused to {action}", where=where, got=got, todo=todo)


def _redirect(server: "Server", location: str) -> AupairError:
    """Return the error for a redirect, which leads either to the https address of the server or to a login page."""
    target, host = urlsplit(location), urlsplit(server.host)
    if target.netloc == host.netloc and target.scheme == "https" != host.scheme:
        got, todo = "a redirect to https", f"pass --host https{server.host.removeprefix('http')}"
        return RejectedError("the server requires https", where=server.host, got=got, todo=todo)
    # without the query, which may hold secrets
    return _login_page(server, f"a redirect to {target.scheme}://{target.netloc}{target.path}")


def _login_page(server: "Server", got: str) -> AuthError:
    return AuthError(
        "this is a login page or another website, not the API",
        where=server.host,
        got=got,
        todo=f"check --host; to log in, {HOW_TO_LOG_IN}",
    )


def _message(body: str) -> str:
    """Return the server's message on one line; only the end of a long one, where servers written in Go put the cause.

    Of an internal error with a stack trace, only the first line is used, which holds the cause.
    """
    try:
        answer = json.loads(body)
        text = str(answer.get("message") or answer.get("error_message") or answer.get("error") or "")
    except (ValueError, AttributeError):
        return ""
    if text.startswith("Internal error: "):
        text = text.splitlines()[0]
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"... {text[-_SHOWN_CHARACTERS:]}"
