"""Listing, download and verification of the objects of an S3 bucket, by boto3.

boto3 reads the credentials and the server's address from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL and boto3's other variables and files.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from aupair import store
from aupair.errors import AupairError, AuthError, DataError, ParamsError, RejectedError, UnreachableError, scrub
from aupair.log import Log
from aupair.retry import LONGEST, has_answered, retry

T = TypeVar("T")

_WORKERS = 4
"""Number of objects that are downloaded and verified at the same time."""

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for a bucket (and AWS_SESSION_TOKEN if there is one), "
    "or give git a user and a password or key"
)
_NETWORK = "check the address (AWS_ENDPOINT_URL) and the network, then run it again to continue"
_CAUSES: tuple[tuple[type[AupairError], str, str, str], ...] = (
    (DataError, "has no such bucket or object", "check the address and AWS_ENDPOINT_URL", r"\(HTTP 404\)"),
    (
        AuthError,
        "needs credentials",
        _KEYS,
        r"NoCredentials|PartialCredentials|CredentialRetrieval|ProfileNotFound|TokenRetrieval|SSO"
        r"|Unable to locate credentials|Partial credentials|could not read (Username|Password)",
    ),
    (
        AuthError,
        "refuses access",
        _KEYS,
        r"(?<!InvalidObjectState) \(HTTP 40[13]\)|Expired|InvalidToken|TokenRefreshRequired|Authentication failed"
        r"|Permission denied|terminal prompts disabled|error: 40[13]|Host key verification failed|Access ?Denied"
        r"|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch",
    ),
    (UnreachableError, "reports a server error", _NETWORK, r"\(HTTP (429|5(?!01)\d\d)\)|error: 5\d\d"),
    (
        UnreachableError,
        "does not answer",
        _NETWORK,
        r"RequestTimeout|ConnectionError|HTTPClientError|IncompleteReadError|HTTPError|OSError|Could not resolve host"
        r"|Couldn't connect|Could not connect|Failed to connect|Connection (refused|timed out|reset|was closed)"
        r"|timed out|SSL|certificate|early EOF|hung up|Operation too slow|unreachable",
    ),
)
"""Failures of a server: error class, message, next step, and a pattern for the reports of boto3, git and DVC.

The first entry whose pattern matches is used.
"""


@dataclass(frozen=True)
class Item:
    """One file of a source.

    Attributes:
        name: relative path with "/" between its parts.
        size: bytes.
        etag: the object store's ETag without quotes; empty for a local file.
    """

    name: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class Patience:
    """Limits on the waiting time for a server.

    Attributes:
        attempts: number of times that boto3 tries a request; the first request to a bucket is tried only once.
        timeout: seconds without an answer or a byte after which an attempt fails.
        outage: seconds to keep trying a server that has answered before and no longer does.
        longest: time limit of a git or DVC command, seconds.
    """

    attempts: int = 5
    timeout: float = 30.0
    outage: float = LONGEST
    longest: float = 6 * 3600.0


def server_error(server: str, where: str, got: str, report: str, otherwise: AupairError) -> AupairError:
    """Return the error for a failure that boto3, git or DVC reports about a server.

    Args:
        server: the name of the server in the error message.
        where, got: the address and the cause in the error message.
        report: the text that is searched for a known cause.
        otherwise: the error to return if the text contains no known cause.
    """
    for kind, what, todo, pattern in _CAUSES:
        if re.search(pattern, report):
            return kind(f"{server} {what}", where=where, got=got, todo=todo)
    return otherwise


def parse_address(source: str) -> tuple[str, str]:
    """Return the bucket of `s3://bucket/prefix`, and the prefix, which is empty or ends in "/".

    Raises:
        ParamsError: the name of the bucket is not valid.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]{3,63}", bucket):
        raise ParamsError(
            "not the address of a bucket",
            expected="s3://bucket/prefix",
            todo="keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the server into AWS_ENDPOINT_URL",
        )
    prefix = prefix.strip("/")
    return bucket, prefix and prefix + "/"


@contextmanager
def s3_client(where: str, patience: Patience) -> Iterator[Any]:
    """Yield an S3 client, and translate exceptions of boto3 inside the block into an AupairError about `where`.

    Raises:
        AuthError: there are no credentials, or the server refuses them.
        UnreachableError: the server does not answer.
        DataError: there is no such bucket or object.
        RejectedError: the server refuses the request.
        ParamsError: AWS_ENDPOINT_URL is not a URL.
    """
    from boto3.session import Session
    from botocore.config import Config

    attempts = patience.attempts if has_answered(_service(where)) else 1
    config = Config(
        connect_timeout=min(10.0, patience.timeout),
        read_timeout=patience.timeout if attempts > 1 else min(10.0, patience.timeout),
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    endpoint = ""
    try:
        try:
            client = Session().client("s3", config=config)
        except ValueError as error:
            expected = "http(s)://host:port"
            raise ParamsError("not the URL of a server", where="AWS_ENDPOINT_URL", expected=expected) from error
        endpoint = scrub(client.meta.endpoint_url)
        yield client
    except _boto3_errors() as error:
        raise _translate(error, where, endpoint) from error


def _boto3_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that boto3 raises when a server refuses or does not answer."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, RetriesExceededError, HTTPError


def _translate(error: Exception, where: str, endpoint: str) -> AupairError:
    """Return the AupairError for an exception of boto3."""
    failure = getattr(error, "last_exception", error)
    status, code = _status_and_code(failure)
    cause = f"{code} (HTTP {status})" if status else type(failure).__name__
    report = cause if status else " ".join(base.__name__ for base in type(failure).__mro__)
    got, todo = f"{cause} from {endpoint}", "check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the bucket"
    refused = RejectedError("the object store refuses the request", where=where, got=got, todo=todo)
    return server_error("the object store", where, got, report, refused)


def _is_transient(error: Exception) -> bool:
    """Return whether an exception of boto3 means that the server throttles, fails or does not answer."""
    return isinstance(error, _boto3_errors()) and isinstance(_translate(error, "", ""), UnreachableError)


def _service(source: str) -> str:
    """Return the name under which `aupair.retry` records that a bucket has answered."""
    return f"s3://{parse_address(source)[0]}"


def list_objects(source: str, patience: Patience) -> list[Item]:
    """List the objects below `s3://bucket/prefix`, sorted by name, without the empty objects that mark a folder.

    Raises:
        DataError: there is no object below the prefix; for other errors see `parse_address` and `s3_client`.
    """
    bucket, prefix = parse_address(source)
    with s3_client(source, patience) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        answers = retry(lambda: list(pages), "listing", _service(source), _is_transient, patience.outage)
        items = [
            Item(entry["Key"].removeprefix(prefix), int(entry["Size"]), entry.get("ETag", "").strip('"'))
            for page in answers
            for entry in page.get("Contents", [])
            if entry["Size"] or not entry["Key"].endswith("/")
        ]
    if not items:
        raise DataError("nothing under this prefix", where=source, todo="check the bucket's name and the prefix")
    return sorted(items, key=lambda item: item.name)


def download_objects(source: str, items: Sequence[Item], folder: Path, log: Log, patience: Patience) -> None:
    """Download objects to a folder, _WORKERS at a time, and verify each; a file that is there and verified is not downloaded.

    Raises:
        DataError: an object has changed since it was listed, or is damaged; for other errors see `s3_client`.
        AupairError: the disk is full or cannot be written.
    """
    from s3transfer.manager import TransferConfig, TransferManager

    config = TransferConfig(num_download_attempts=patience.attempts)
    with (
        s3_client(source, patience) as client,
        TransferManager(client, config) as manager,  # an error in the block cancels all downloads
        ThreadPool(_WORKERS) as pool,
    ):
        bucket = _Bucket(client, manager, *parse_address(source))

        def fetch_one(item: Item) -> bool:
            what = f"fetching {item.name}"
            return retry(lambda: bucket.fetch(folder, item), what, _service(source), _is_transient, patience.outage)

        verified = pool.imap_unordered(fetch_one, items)
        by_size = sum(not content for content in log.progress(verified, len(items), "fetching files"))
    if by_size:
        log.line(f"checked by size alone, since the server has no usable checksum: {by_size} of {len(items)} files")


@dataclass(frozen=True)
class _Bucket:
    """A bucket to download from, shared by threads."""

    client: Any
    manager: Any
    name: str
    prefix: str

    def fetch(self, folder: Path, item: Item) -> bool:
        """Download one object to `folder/item.name`; return whether its content was verified and not only its size."""
        from botocore.exceptions import ClientError, FlexibleChecksumError
        from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

        path = folder / item.name
        try:
            if path.exists() and self._verify(item, path):
                return True
            self._download(item, path)
            verified = self._verify(item, path)
            if verified is not False:
                return bool(verified)
        except (ClientError, FlexibleChecksumError, S3DownloadFailedError, S3ValidationError) as error:
            if _status_and_code(error)[0] not in (0, 404):
                raise
        path.unlink(missing_ok=True)
        raise DataError(
            "an object that has changed since it was listed, or is damaged",
            where=f"s3://{self.name}/{self.prefix}{item.name}",
            expected=f"{item.size} bytes with ETag {item.etag or '(none)'}",
            todo="fetch again; if this does not help, upload it again",
        )

    def _download(self, item: Item, path: Path) -> None:
        """Download one object through a temporary file beside `path`."""

        def spare_head_request(future: Any, **_: object) -> None:
            future.meta.provide_transfer_size(item.size)
            if item.etag:
                future.meta.provide_object_etag(f'"{item.etag}"')

        subscribers = [SimpleNamespace(on_queued=spare_head_request)]
        with store.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.manager.download(self.name, self.prefix + item.name, str(path), subscribers=subscribers).result()

    def _verify(self, item: Item, path: Path) -> bool | None:
        """Return whether a file has the size and the checksum of its object.

        The transfer manager does not verify an object that it downloads in parts.

        Returns:
            None if the size is right, but the ETag is not a checksum of the content.
        """
        if path.stat().st_size != item.size:
            return False
        form = re.fullmatch(r"[0-9a-f]{32}(?:-(\d+))?", item.etag)
        if form is None:
            return None
        parts = self._part_sizes(item, int(form[1])) if form[1] else [item.size]
        if sum(parts) != item.size:
            return None
        if _etag(path, parts, multipart=form[1] is not None) == item.etag:
            return True
        head = self._head(item)
        # If the object is encrypted with a key other than the store's own, its ETag is not the MD5 of the content.
        other_key = head.get("ServerSideEncryption", "AES256") != "AES256"
        return None if other_key and head.get("ETag", "").strip('"') == item.etag else False

    def _part_sizes(self, item: Item, count: int) -> list[int]:
        """Return the sizes of the parts that an object was uploaded in; empty if the server does not know them."""
        from botocore.exceptions import ClientError

        try:
            return [int(self._head(item, PartNumber=number)["ContentLength"]) for number in range(1, count + 1)]
        except ClientError as error:
            if _status_and_code(error)[0] not in (400, 416, 501):
                raise
            return []

    def _head(self, item: Item, **more: Any) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.name, Key=self.prefix + item.name, **more))


def _etag(path: Path, parts: Sequence[int], multipart: bool) -> str:
    """Compute the ETag of a file as S3 does.

    It is the file's MD5. For an object that was uploaded in parts it is the MD5 of the parts' MD5s, followed by the
    number of parts.
    """
    digests = []
    with open(path, "rb") as file:
        for size in parts:
            md5, remaining = hashlib.md5(usedforsecurity=False), size
            while remaining and (block := file.read(min(1 << 20, remaining))):
                md5.update(block)
                remaining -= len(block)
            digests.append(md5)
    if not multipart:
        return digests[0].hexdigest()
    return f"{hashlib.md5(b''.join(md5.digest() for md5 in digests), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _status_and_code(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the error code of a server's answer; 0 and empty if there was no answer."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", ""))
