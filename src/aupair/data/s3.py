"""Objects of an S3 bucket: listed, fetched in parallel, taken up where they broke off, each one verified.

boto3 reads who we are and where the server is from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL and the rest of its variables and files.
"""

import hashlib
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aupair.data.s3_errors import code, explain, status, troubles, will_pass
from aupair.data.staging import Item, Patience, Staging, check_names, scrub, writing
from aupair.errors import DataError, ParamsError
from aupair.log import Log

WORKERS = 4
BLOCK = 1 << 16
"""Bytes read at once; as much is lost when a connection breaks."""

SOMEWHERE = 1 << 20
"""A try that brought this many bytes has got somewhere."""


class Changed(DataError):
    """An object is not the one that was listed any more."""


class Damaged(DataError):
    """What came is not the object."""


@dataclass(frozen=True)
class Place:
    """A bucket, and a prefix that is empty or ends in "/"."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def place(source: str) -> Place:
    """Read `s3://bucket/prefix`.

    Raises:
        ParamsError: there is no bucket's name in it.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[\w.-]{3,63}", bucket):
        raise ParamsError(
            "not the address of a bucket",
            expected="s3://bucket/prefix",
            todo="keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the server into AWS_ENDPOINT_URL",
        )
    prefix = prefix.strip("/")
    return Place(bucket, prefix and prefix + "/")


def list_objects(where: Place, patience: Patience) -> list[Item]:
    """List every object under a prefix, but for the empty ones that only mark a folder.

    Raises:
        DataError: there is no such bucket, nothing under the prefix, or a key that cannot be a file.
        AuthError: no or wrong credentials.
        UnreachableError: the server does not answer.
    """
    endpoint = ""
    try:
        client = _client(patience)
        endpoint = client.meta.endpoint_url
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=where.prefix)
        found = [_item(entry, where) for page in pages for entry in page.get("Contents", [])]
    except troubles() as error:
        raise explain(error, str(where), scrub(endpoint)) from error
    items = [item for item in found if item.size or (item.name and not item.name.endswith("/"))]
    if not items:
        raise DataError("nothing under this prefix", where=where, todo="check the bucket's name and the prefix")
    check_names(items, str(where))
    return sorted(items, key=lambda item: item.name)


def fetch_objects(where: Place, items: Sequence[Item], staging: Staging, log: Log, patience: Patience) -> None:
    """Fetch objects into the staging folder, a few at a time, and verify every one.

    Raises:
        Changed: an object is not the one listed any more.
        DataError: an object stays truncated or does not match its checksum.
        AuthError, UnreachableError, RejectedError: the server's refusal; what is there stays.
        AupairError: the disk is full or cannot be written.
    """
    by_size, stop, endpoint = 0, threading.Event(), ""
    try:
        client = _client(patience)
        endpoint = client.meta.endpoint_url
        transfer = _Transfer(client, where, staging, patience, stop)
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                futures = [pool.submit(transfer.fetch, item) for item in items]
                for future in log.progress(as_completed(futures), len(futures), "fetching files"):
                    by_size += not future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except troubles() as error:
        there = sum((staging.whole / item.name).exists() for item in items)
        todo = f"{there} of {len(items)} files are there; run it again to go on"
        raise explain(error, str(where), scrub(endpoint), todo) from error
    if by_size:
        log.line(f"checked by size alone, the server gives no usable checksum: {by_size} of {len(items)} files")


@dataclass(frozen=True)
class _Transfer:
    """Fetches one object of a place at a time; threads share it."""

    client: Any
    place: Place
    staging: Staging
    patience: Patience
    stop: threading.Event

    def fetch(self, item: Item) -> bool:
        """Fetch one object with patience, and tell whether its content, not its size alone, was verified."""
        whole, part = self.staging.paths(item.name)
        failed = 0
        caught: tuple[type[Exception], ...] = (*troubles(), Damaged)
        while True:
            before = _size(part)
            try:
                return self._once(item, whole, part)
            except caught as error:
                failed = 1 if _size(part) >= before + SOMEWHERE else failed + 1
                if failed >= self.patience.attempts or not (isinstance(error, Damaged) or will_pass(error)):
                    raise
            if self.stop.wait(self.patience.backoff * 2 ** (failed - 1)):
                raise CancelledError

    def _once(self, item: Item, whole: Path, part: Path) -> bool:
        """Go on with an object from what is there; what an earlier call left is verified like the rest."""
        if whole.exists():
            try:
                return self._verify(item, whole)
            except Damaged:  # spoilt in between; a short one is gone on with
                if whole.exists():
                    whole.replace(part)
        if _size(part) > item.size:
            part.unlink()
        if not part.exists() or _size(part) < item.size:
            self._download(item, part)
        verified = self._verify(item, part)
        with writing(whole):
            part.replace(whole)
        return verified

    def _download(self, item: Item, part: Path) -> None:
        """Append what is missing of an object to its part."""
        from botocore.exceptions import ClientError, FlexibleChecksumError

        have = _size(part)
        asked = {"IfMatch": f'"{item.etag}"'} if item.etag else {}
        asked |= {"Range": f"bytes={have}-"} if have else {}
        try:
            answer = self.client.get_object(Bucket=self.place.bucket, Key=self.place.prefix + item.name, **asked)
        except ClientError as error:
            if status(error) == 412 or code(error) == "NoSuchKey":
                raise Changed(
                    "an object has changed since it was listed", where=self._name(item), todo="list it again"
                ) from error
            if status(error) == 416:
                part.unlink()
                raise self._damaged("a truncated object", item, f"no byte after {have}") from error
            raise
        mode = "ab" if have and "ContentRange" in answer else "wb"  # a server may ignore the range
        try:
            with closing(answer["Body"]) as body, writing(part), open(part, mode) as file:
                for block in iter(partial(body.read, BLOCK), b""):
                    if self.stop.is_set():
                        raise CancelledError
                    file.write(block)
        except FlexibleChecksumError as error:
            if _size(part) == item.size:  # else it only ended early
                part.unlink()
                raise self._damaged("an object that does not match its checksum", item) from error

    def _verify(self, item: Item, part: Path) -> bool:
        """Hold a part against size and ETag; a wrong one is deleted, a short one stays to be gone on with."""
        size = _size(part)
        if size < item.size:
            raise self._damaged("a truncated object", item, f"{size} bytes", f"{item.size} bytes")
        matches = None if size > item.size else self._matches(item, part)
        if size > item.size or matches is False:
            part.unlink()
            raise self._damaged("an object that does not match its checksum", item, f"{size} bytes")
        return bool(matches)

    def _matches(self, item: Item, part: Path) -> bool | None:
        """Hold content against the ETag; None where that is no checksum of the content."""
        form = re.fullmatch(r"[0-9a-f]{32}(?:-(\d+))?", item.etag)
        if form is None:
            return None
        cut = False
        for sizes in self._layouts(item, int(form[1])) if form[1] else [[item.size]]:
            cut = True
            if _etag(part, sizes, multipart=form[1] is not None) == item.etag:
                return True
        return None if not cut or self._encrypted(item) else False

    def _layouts(self, item: Item, count: int) -> Iterator[list[int]]:
        """Give how the object may have been cut: into equal parts, which takes one question, or as each part says."""
        first = self._part_size(item, 1)
        if first and math.ceil(item.size / first) == count:
            yield [first] * (count - 1) + [item.size - first * (count - 1)]
        sizes = [first, *(self._part_size(item, number) for number in range(2, count + 1))]
        if sum(sizes) == item.size:
            yield sizes

    def _part_size(self, item: Item, number: int) -> int:
        """Ask for the size of one part; 0 where the server doesn't know parts."""
        from botocore.exceptions import ClientError

        try:
            return int(self._head(item, PartNumber=number)["ContentLength"])
        except ClientError as error:
            if status(error) in (400, 416, 501):
                return 0
            raise

    def _encrypted(self, item: Item) -> bool:
        """Tell whether the object is encrypted in a way that makes its ETag something else than an MD5."""
        head = self._head(item)
        return head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head

    def _head(self, item: Item, **more: Any) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.place.bucket, Key=self.place.prefix + item.name, **more))

    def _damaged(self, what: str, item: Item, got: object = "", expected: object = "") -> Damaged:
        return Damaged(what, where=self._name(item), got=got, expected=expected, todo="upload it again if it stays so")

    def _name(self, item: Item) -> str:
        return f"s3://{self.place.bucket}/{self.place.prefix}{item.name}"


def _client(patience: Patience) -> Any:
    """Make a client whose every wait has an end."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=min(10.0, patience.timeout),
        read_timeout=patience.timeout,
        retries={"mode": "standard", "total_max_attempts": min(3, patience.attempts)},
    )
    try:
        return Session().client("s3", config=config)
    except ValueError as error:
        raise ParamsError(
            "not the URL of a server", where="AWS_ENDPOINT_URL", expected="http(s)://host:port"
        ) from error


def _item(entry: dict[str, Any], where: Place) -> Item:
    """Read an entry of a listing; a weak ETag says nothing about content."""
    etag = entry.get("ETag", "")
    return Item(
        entry["Key"].removeprefix(where.prefix), int(entry["Size"]), "" if etag[:2] == "W/" else etag.strip('"')
    )


def _size(path: Path) -> int:
    """Give a file's size, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _etag(path: Path, sizes: Sequence[int], multipart: bool) -> str:
    """Compute a file's ETag: its MD5; of an object uploaded in parts, the MD5 of their MD5s, and their number."""
    digests = []
    with open(path, "rb") as file:
        for size in sizes:
            md5, left = hashlib.md5(usedforsecurity=False), size
            while left and (block := file.read(min(BLOCK, left))):
                md5.update(block)
                left -= len(block)
            digests.append(md5)
    if not multipart:
        return digests[0].hexdigest()
    joined = b"".join(md5.digest() for md5 in digests)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(sizes)}"
