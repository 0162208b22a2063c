"""A bucket on a real server, with and without a proxy that fails, for the tests that fetch from one."""

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.bucket import BUCKET
from services.flaky import Flaky, flaky_proxy
from services.s3 import S3, s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server for a module. boto3 reads its descriptions of the API once only, which saves half of the tests' time."""
    import botocore.session

    with s3_server(tmp_path_factory.mktemp("s3"), [BUCKET]) as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield running


@pytest.fixture(scope="module")
def clients(server: S3) -> dict[bool, Any]:
    """Clients of the administrator; `True`: one that sends no CRC with what it uploads."""
    from boto3.session import Session
    from botocore.config import Config

    session = Session(server.access_key, server.secret_key, region_name="us-east-1")
    kinds = {True: "when_required", False: "when_supported"}
    return {
        plain: session.client("s3", endpoint_url=server.endpoint, config=Config(request_checksum_calculation=kind))
        for plain, kind in kinds.items()
    }


@pytest.fixture
def s3_environment(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with its address and keys as the only settings of S3 in the environment."""
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in server.environment().items():
        monkeypatch.setenv(key, value)
    return server


@pytest.fixture
def proxy(s3_environment: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """A proxy in front of the server, its address in the environment."""
    with flaky_proxy(urlsplit(s3_environment.endpoint).port or 0) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def put(clients: dict[bool, Any], request: pytest.FixtureRequest) -> Callable[..., str]:
    """Return a function that uploads objects under a prefix of the test and returns its address.

    With `plain` they have no CRC beside the ETag.
    """
    prefix = re.sub(r"\W+", "-", request.node.name)

    def upload(objects: dict[str, bytes], plain: bool = False) -> str:
        for name, content in objects.items():
            clients[plain].put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content)
        return f"s3://{BUCKET}/{prefix}"

    return upload
