"""Objects of an S3 bucket: listed, downloaded by boto3's transfer manager, each one verified.

boto3 reads the credentials and the server's address from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL and the rest of its variables and files.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aupair import store
from aupair.errors import AupairError, AuthError, DataError, ParamsError, RejectedError, UnreachableError, scrub
from aupair.log import Log

_WORKERS = 4
"""Objects that are downloaded and verified at the same time."""

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it (and AWS_SESSION_TOKEN if there is one)"
)
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException")
"""Error codes for credentials that are no longer valid; they come with status 400."""


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
    """Limits on how long a server is waited for.

    Attributes:
        attempts: tries of a request, and of a file whose content is wrong.
        timeout: seconds without an answer, or without a byte, that make a try fail.
        longest: seconds that a whole git or DVC command may take.
    """

    attempts: int = 5
    timeout: float = 30.0
    longest: float = 6 * 3600.0


def parse_address(source: str) -> tuple[str, str]:
    """Return the bucket of `s3://bucket/prefix`, and the prefix, which is empty or ends in "/".

    Raises:
        ParamsError: there is no valid name of a bucket in it.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[\w.-]{3,63}", bucket):
        raise ParamsError(
            "not the address of a bucket",
            expected="s3://bucket/prefix",
            todo="keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the server into AWS_ENDPOINT_URL",
        )
    prefix = prefix.strip("/")
    return bucket, prefix and prefix + "/"


@contextmanager
def s3_client(where: str, patience: Patience, todo: str = "") -> Iterator[Any]:
    """Yield an S3 client, and translate what boto3 raises inside the block into one line about `where`.

    Args:
        todo: the next step after a failure that may pass.

    Raises:
        AuthError: there are no credentials, or the server refuses them.
        UnreachableError: the server does not answer.
        DataError, RejectedError, ParamsError: there is no such bucket, or the server refuses the request.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError, S3ValidationError
    from urllib3.exceptions import HTTPError

    config = Config(
        connect_timeout=min(10.0, patience.timeout),
        read_timeout=patience.timeout,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
    )
    caught = (BotoCoreError, ClientError, ResponseParserError, RetriesExceededError, S3ValidationError, HTTPError)
    endpoint = ""
    try:
        try:
            client = Session().client("s3", config=config)
        except ValueError as error:
            expected = "http(s)://host:port"
            raise ParamsError("not the URL of a server", where="AWS_ENDPOINT_URL", expected=expected) from error
        endpoint = scrub(client.meta.endpoint_url)
        yield client
    except caught as error:
        raise _translate(getattr(error, "last_exception", error), where, endpoint, todo) from error


def list_objects(source: str, patience: Patience) -> list[Item]:
    """List every object below `s3://bucket/prefix`, except for the empty ones that only mark a folder.

    Raises:
        ParamsError: not the address of a bucket.
        DataError: there is no such bucket, or nothing under the prefix.
        AuthError, UnreachableError, RejectedError: see `s3_client`.
    """
    bucket, prefix = parse_address(source)
    with s3_client(source, patience) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        items = [
            Item(entry["Key"].removeprefix(prefix), int(entry["Size"]), _identifying_etag(entry))
            for page in pages
            for entry in page.get("Contents", [])
            if entry["Size"] or not entry["Key"].endswith("/")
        ]
    if not items:
        raise DataError("nothing under this prefix", where=source, todo="check the bucket's name and the prefix")
    return sorted(items, key=lambda item: item.name)


def download_objects(source: str, items: Sequence[Item], folder: Path, log: Log, patience: Patience) -> None:
    """Download objects to `folder/whole`, a few at a time, and verify every one.

    A file that is already there is kept if its content is verified. What is incomplete lies in `folder/parts`.

    Raises:
        DataError: an object has changed since it was listed, or its content is wrong every time.
        AuthError, UnreachableError, RejectedError: see `s3_client`.
        AupairError: the disk is full or cannot be written.
    """
    from s3transfer.manager import TransferConfig, TransferManager

    by_size = 0
    with s3_client(source, patience, "run it again to go on: complete files are kept") as client:
        config = TransferConfig(num_download_attempts=patience.attempts)
        # leaving the inner block cancels the downloads that the pool's threads wait for
        with ThreadPoolExecutor(_WORKERS) as pool, TransferManager(client, config) as manager:
            downloads = _Downloads(client, manager, *parse_address(source), patience.attempts)
            futures = [pool.submit(downloads.fetch, item, folder, str(k)) for k, item in enumerate(items)]
            try:
                for future in log.progress(as_completed(futures), len(futures), "fetching files"):
                    by_size += not future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if by_size:
        log.line(f"checked by size alone, the server gives no usable checksum: {by_size} of {len(items)} files")


@dataclass(frozen=True)
class _Downloads:
    """Downloads from one bucket; threads share it."""

    client: Any
    manager: Any
    bucket: str
    prefix: str
    attempts: int

    def fetch(self, item: Item, folder: Path, part_name: str) -> bool:
        """Bring one object to `folder/whole`; return whether its content was verified, not its size alone."""
        whole, part = folder / "whole" / item.name, folder / "parts" / part_name
        if whole.exists() and whole.stat().st_size == item.size and self._content_matches(item, whole):
            return True
        for _ in range(self.attempts):
            verified = self._download(item, part)
            if verified is not None:
                with store.writing(whole):
                    whole.parent.mkdir(parents=True, exist_ok=True)
                    part.replace(whole)
                return verified
        raise DataError(
            "an object that has changed since it was listed, or is damaged",
            where=f"s3://{self.bucket}/{self.prefix}{item.name}",
            expected=f"{item.size} bytes with ETag {item.etag or '(none)'}",
            todo="fetch again; upload it again if it stays so",
        )

    def _download(self, item: Item, part: Path) -> bool | None:
        """Download one object; return whether its content was verified, None where it differs from the listing."""
        from botocore.exceptions import ClientError, FlexibleChecksumError
        from s3transfer.exceptions import S3DownloadFailedError

        def spare_head_request(future: Any, **_: object) -> None:
            future.meta.provide_transfer_size(item.size)
            if item.etag:
                future.meta.provide_object_etag(f'"{item.etag}"')

        subscriber = SimpleNamespace(on_queued=spare_head_request)
        try:
            with store.writing(part):
                self.manager.download(
                    self.bucket, self.prefix + item.name, str(part), subscribers=[subscriber]
                ).result()
            if part.stat().st_size != item.size:
                return None
            # the transfer manager verifies no object that it downloads in parts
            matches = self._content_matches(item, part)
            if matches is False:
                # encrypted by another key than the store's own, the ETag is not the MD5 of the content
                head = self._head(item)
                encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
                return False if encrypted and _identifying_etag(head) == item.etag else None
            return bool(matches)
        except (FlexibleChecksumError, S3DownloadFailedError):  # the second: another ETag than the listed one
            return None
        except ClientError as error:
            if _status_and_code(error)[0] == 404:
                return None
            raise

    def _content_matches(self, item: Item, path: Path) -> bool | None:
        """Return whether a file's content has the ETag of an item; None where the ETag is no checksum of the content."""
        form = re.fullmatch(r"[0-9a-f]{32}(?:-(\d+))?", item.etag)
        if form is None:
            return None
        compared = False
        for sizes in self._part_layouts(item, int(form[1])) if form[1] else [[item.size]]:
            compared = True
            if _etag(path, sizes, multipart=form[1] is not None) == item.etag:
                return True
        return False if compared else None

    def _part_layouts(self, item: Item, count: int) -> Iterator[list[int]]:
        """Yield the sizes of the parts that an object may have been uploaded in; nothing where the server knows none.

        First equal parts, which takes one request; then the size of each part, which takes one request a part.
        """
        from botocore.exceptions import ClientError

        def size_of(number: int) -> int:
            return int(self._head(item, PartNumber=number)["ContentLength"])

        try:
            first = size_of(1)
            if first and math.ceil(item.size / first) == count:
                yield [first] * (count - 1) + [item.size - first * (count - 1)]
            sizes = [first, *(size_of(number) for number in range(2, count + 1))]
            if sum(sizes) == item.size:
                yield sizes
        except ClientError as error:
            if _status_and_code(error)[0] not in (400, 416, 501):
                raise

    def _head(self, item: Item, **more: Any) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.bucket, Key=self.prefix + item.name, **more))


def _identifying_etag(answer: dict[str, Any]) -> str:
    """Return the ETag of an answer without quotes; empty for a weak one, which does not identify the content."""
    etag = str(answer.get("ETag", ""))
    return "" if etag.startswith("W/") else etag.strip('"')


def _etag(path: Path, sizes: Sequence[int], multipart: bool) -> str:
    """Compute a file's ETag: its MD5; of an object uploaded in parts, the MD5 of their MD5s, and their number."""
    digests = []
    with open(path, "rb") as file:
        for size in sizes:
            md5, remaining = hashlib.md5(usedforsecurity=False), size
            while remaining and (block := file.read(min(1 << 20, remaining))):
                md5.update(block)
                remaining -= len(block)
            digests.append(md5)
    if not multipart:
        return digests[0].hexdigest()
    joined = b"".join(md5.digest() for md5 in digests)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(sizes)}"


def _status_and_code(error: Exception) -> tuple[int, str]:
    """Return the HTTP status of a server's answer and its error code; 0 and empty where there was no answer."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", ""))


def _translate(error: Exception, where: str, endpoint: str, todo: str) -> AupairError:
    """Return the error of ours for one of boto3's; it has the server's error code, not its text, and no credentials."""
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    no_credentials = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    no_login = (boto.ProfileNotFound, boto.TokenRetrievalError, boto.SSOError)
    no_connection = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, HTTPError, OSError)
    status, code = _status_and_code(error)
    cause = f"{code} (HTTP {status})" if status else type(error).__name__
    if isinstance(error, (*no_credentials, *no_login)):
        return AuthError("no usable credentials for the object store", where=where, got=cause, todo=_KEYS)
    if code in _EXPIRED or (status in (401, 403) and code != "InvalidObjectState"):
        return AuthError("the object store refuses these credentials", where=where, got=cause, todo=_KEYS)
    got = f"{cause} from {endpoint}"
    if isinstance(error, no_connection) or status >= 500 or status == 429 or code == "RequestTimeout":
        what = "the object store reports a failure of its own" if status else "the object store does not answer"
        todo = todo or "check AWS_ENDPOINT_URL and the network"
        return UnreachableError(what, where=where, got=got, todo=todo)
    if status == 404:
        what = "no such bucket" if code == "NoSuchBucket" else "no such object, or no object store"
        return DataError(what, where=where, got=got, todo="check the bucket and AWS_ENDPOINT_URL")
    if isinstance(error, boto.ParamValidationError):
        return ParamsError("not the address of a bucket", where=where, expected="s3://bucket/prefix")
    todo = "check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the bucket"
    return RejectedError("the object store refuses the request", where=where, got=got, todo=todo)
