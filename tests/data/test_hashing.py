"""Tests of the folder hash against the real DVC's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aupair.data.hashing import dvc_hash
from aupair.errors import DataError


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true", "DVC_SITE_CACHE_DIR": str(folder / "site")}
    command = [sys.executable, "-m", "dvc", "-q", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def fill(data: Path) -> None:
    for name, content in {
        "videos/b.mp4": os.urandom(3_000_000),
        "videos/a.mp4": b"",
        'annotations/AU_Set/Train_Set/ä b,"c".txt': b"x\r\ny\n",
        "annotations-2/z.txt": b"z",
        "a/b.txt": b"1",
        "a-b.txt": b"2",
        ".DS_Store": b"3",
        ".gitignore": b"*.mp4\n",
        ".git/config": b"5",
    }.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    (data / "empty").mkdir()


def test_equals_dvc_add(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "linked.txt").write_text("linked")
    (data / "folder_link").symlink_to(outside)
    (data / "file_link.txt").symlink_to(outside / "linked.txt")
    assert dvc(tmp_path, "init", "--no-scm").returncode == 0
    outcome = dvc(tmp_path, "add", "data")
    assert outcome.returncode == 0, outcome.stderr
    assert dvc_hash(data) == yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]["md5"]


def test_what_dvc_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"^the file cannot be read: in .*gone"):
        dvc_hash(tmp_path)
    (tmp_path / "gone").unlink()
    (tmp_path / ".dvcignore").write_text("*.tmp")
    with pytest.raises(DataError, match=r"^a \.dvcignore inside the data"):
        dvc_hash(tmp_path)
