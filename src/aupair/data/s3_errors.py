"""What boto3 raises, as one of our errors: the server's code is told, its prose and every credential are not."""

from typing import Any

from aupair.errors import AupairError, AuthError, DataError, ParamsError, RejectedError, UnreachableError

KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it (and AWS_SESSION_TOKEN if there is one)"
)
TOKENS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException")
"""Codes about who we are that come with status 400."""


def troubles() -> tuple[type[Exception], ...]:
    """Give what a client's calls and the reading of a body raise."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, HTTPError


def status(error: Exception) -> int:
    """Give the HTTP status of a server's answer, 0 where there was none."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: Exception) -> str:
    """Give the server's code for a refusal."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def will_pass(error: Exception) -> bool:
    """Tell whether the same request may work a moment later."""
    return _broken(error) or status(error) >= 500 or status(error) == 429 or code(error) == "RequestTimeout"


def explain(error: Exception, where: str, endpoint: str, todo: str = "") -> AupairError:
    """Give the error of ours for one of boto3's.

    Args:
        where: what was asked for.
        endpoint: the server, without credentials.
        todo: the next step after a failure that passes.
    """
    from botocore import exceptions as boto

    strangers = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.ProfileNotFound,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    said = f"{code(error)} (HTTP {status(error)})" if status(error) else type(error).__name__
    if isinstance(error, strangers):
        return AuthError("no usable credentials for the object store", where=where, got=said, todo=KEYS)
    if code(error) in TOKENS or (status(error) in (401, 403) and code(error) != "InvalidObjectState"):
        return AuthError("the object store refuses these credentials", where=where, got=said, todo=KEYS)
    if will_pass(error):
        return UnreachableError(
            "the object store is in trouble, or none" if status(error) else "the object store does not answer",
            where=where,
            got=f"{said} from {endpoint}",
            todo=todo or "check AWS_ENDPOINT_URL and the network",
        )
    if status(error) == 404:
        what = "no such bucket" if code(error) == "NoSuchBucket" else "no such object, or no object store"
        return DataError(what, where=where, got=f"{said} from {endpoint}", todo="check the bucket and AWS_ENDPOINT_URL")
    if isinstance(error, boto.ParamValidationError):
        return ParamsError("not the address of a bucket", where=where, expected="s3://bucket/prefix")
    return RejectedError(
        "the object store refuses the request",
        where=where,
        got=f"{said} from {endpoint}",
        todo="check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the bucket",
    )


def _broken(error: Exception) -> bool:
    """Tell whether the connection failed, rather than the request."""
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    return isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError | HTTPError)
