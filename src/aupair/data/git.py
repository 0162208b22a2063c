"""The data folder of a git repository: a shallow clone, then `dvc pull data.dvc`, both run as subprocesses."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from aupair import store
from aupair.data.hashing import dvc_hash, read_tracked
from aupair.data.s3 import Patience, server_error
from aupair.errors import AupairError, DataError, ParamsError, UnreachableError, scrub
from aupair.extras import require
from aupair.log import Log
from aupair.retry import note_answer, retry

_GIT_PLACES = r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|COMMON_DIR|PREFIX)"
"""Environment variables that would make git use another repository than the one in its working directory."""

_NO_REVISION = (
    r"couldn't find remote ref|not our ref|unadvertised object|not take a path|not a tree|unable to read tree"
)
_UNINFORMATIVE = r"(Please make sure|and the repository exists|fatal: Could not read from remote repository|From |$)"


def check_source(source: str, revision: str, remote: str) -> None:
    """Check the address of a repository and the names of the revision and the DVC remote.

    Raises:
        ParamsError: the address is not a URL or has an @ after the host, so that a password in it would be read as a
            path and printed; or git would read a name as an option or as several names.
    """
    # A file: URL has no host; the others have a host without an @ after it.
    if not re.fullmatch(r"git\+(file:///.+|(https?|ssh)://[^/]+/[^@]+)", source):
        raise ParamsError(
            "not the address of a git repository",
            expected="git+https://host/repository.git without an @ after the host",
            todo="name a branch, tag or commit as the revision, and write / in a password as %2F",
        )
    for what, name in (("revision", revision), ("remote", remote)):
        if name and not re.fullmatch(r"(?!-)[^\s~^:?*\[\\\x00-\x1f]+", name):
            raise ParamsError(f"not the name of a {what}", got=repr(name))


def fetch_data(source: str, revision: str, remote: str, folder: Path, log: Log, patience: Patience) -> str:
    """Write the folder `data` of a git repository to `folder/whole`, and return the hash of the commit.

    Files that DVC has pulled remain in `folder/cache`, so that a second call pulls only the missing ones.

    Raises:
        ParamsError: there is no such DVC remote.
        DataError: there is no such repository, revision or data.dvc, or files are damaged or missing on the remote.
        AuthError, UnreachableError: the server of git or DVC refuses or does not answer.
    """
    require("dvc")
    repository, where = folder / "repository", scrub(source)
    with store.writing(folder):
        repository.mkdir()
    log.line(f"cloning {where}")
    commit = _clone(source.removeprefix("git+"), revision, repository, patience)
    for name in ("data.dvc", ".dvc"):
        if not (repository / name).exists():
            todo = "run `dvc add data` there and commit it"
            raise DataError(f"no {name}", where=f"{where} at {commit[:12]}", todo=todo)
    log.line(f"pulling data.dvc at {commit[:12]}")
    pull = partial(_pull, remote, repository, where, patience)
    retry(pull, "pulling data.dvc", _remote_of(where), _is_transient, patience.outage)
    _verify(repository, folder / "cache", log)
    with store.writing(folder):
        (folder / "whole").rmdir()
        (repository / "data").rename(folder / "whole")
        for path in (folder / "whole").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # DVC makes files that are linked to its cache read-only
    return commit


def _clone(url: str, revision: str, repository: Path, patience: Patience) -> str:
    """Check out one revision, without history if the server supports that, and return the hash of its commit."""
    where = scrub(url)

    def git(*arguments: str) -> str:
        code, output = _run(["git", *arguments], repository, patience)
        if not code:
            return output
        if re.search(_NO_REVISION, output):
            expected = "a branch, a tag or a commit"
            raise DataError("no such revision", where=where, got=revision or "HEAD", expected=expected)
        got = _cause(output)
        no_repository = DataError("no such git repository", where=where, got=got, todo="check the URL")
        # The address is removed, since a word in it could look like a cause.
        report = scrub(output).replace(where.partition("://")[2], "")
        raise server_error("the git server", where, got, report, no_repository)

    git("init", "-q")
    try:
        git("fetch", "-q", "--no-tags", "--depth=1", url, revision or "HEAD")
        git("checkout", "-q", "--detach", "FETCH_HEAD")
    except DataError:
        if not re.fullmatch(r"[0-9a-f]{4,64}", revision):
            raise
        # The hash is abbreviated, or the server does not serve commits by their hash.
        git("fetch", "-q", "--tags", url, "+refs/heads/*:refs/remotes/origin/*")
        git("checkout", "-q", "--detach", revision)
    return git("rev-parse", "HEAD").split()[-1]


def _pull(remote: str, repository: Path, where: str, patience: Patience) -> None:
    """Pull the files of data.dvc into a cache beside the clone, which a second call uses again."""
    with store.writing(repository):
        config = '[cache]\n    dir = ../../cache\n    type = "hardlink,copy"\n'
        (repository / ".dvc" / "config.local").write_text(config)
    # -P: a module in the repository must not be imported instead of one of DVC's
    command = [sys.executable, "-P", "-m", "dvc", "pull", *(("-r", remote) if remote else ()), "data.dvc"]
    cache = repository.parent / "cache"
    before = len(list(cache.rglob("*")))
    code, output = _run(command, repository, patience)
    if len(list(cache.rglob("*"))) > before:
        note_answer(_remote_of(where))
    if code and re.search(r"No remote provided|remote '.*' doesn't exist", output):
        got = remote or "no default one"
        raise ParamsError("no such DVC remote", where=where, got=got, todo="name one as remote")
    if code:
        what, got, todo = "the DVC remote lacks files of data.dvc", _cause(output), "run `dvc push` where they are"
        missing_files = DataError(what, where=where, got=got, todo=todo)
        raise server_error("the DVC remote", where, got, output, missing_files)
    if not (repository / "data").is_dir():
        raise DataError("data.dvc tracks no folder data", where=where, todo="run `dvc add data` there")


def _remote_of(where: str) -> str:
    """Return the name under which `aupair.retry` records that a repository's DVC remote has answered."""
    return f"the DVC remote of {where}"


def _is_transient(error: Exception) -> bool:
    """Return whether a failure is transient; a command that was stopped after hours is not run again."""
    return isinstance(error, UnreachableError) and not isinstance(error.__cause__, subprocess.TimeoutExpired)


def _verify(repository: Path, cache: Path, log: Log) -> None:
    """Compare the hash of the pulled folder with data.dvc, since DVC accepts damaged files from a remote.

    Raises:
        DataError: the hashes differ; the cache with the damaged file is deleted first.
    """
    expected = read_tracked(repository / "data.dvc")
    if expected.hash != "md5":
        log.line("the data are not verified: data.dvc was written by DVC 2, which hashed text files differently")
        return
    got = dvc_hash(repository / "data", log)
    if got != expected.md5:
        shutil.rmtree(cache)
        raise DataError(
            "an object that does not match its checksum",
            where="the DVC remote's data",
            got=got,
            expected=expected.md5,
            todo="run `dvc push` again where the files are good",
        )


def _run(command: Sequence[str], folder: Path, patience: Patience) -> tuple[int, str]:
    """Run a command without a terminal and with a time limit; return its exit code and its output."""
    environment = {
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
        **{key: value for key, value in os.environ.items() if not re.fullmatch(_GIT_PLACES, key)},
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1",
        "GIT_HTTP_LOW_SPEED_TIME": str(max(1, round(patience.timeout))),
        "DVC_NO_ANALYTICS": "true",
    }
    # A helper that outlives git would keep a pipe open, and this process would wait for it; a file has no such problem.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # without a terminal that ssh could ask for a password
                timeout=patience.longest,
            )
        except FileNotFoundError as error:
            raise AupairError("a program is not installed", got=command[0], todo=f"install {command[0]}") from error
        except subprocess.TimeoutExpired as error:
            what, got = f"{command[0]} did not end", f"{patience.longest:g} s"
            raise UnreachableError(what, got=got, todo="run it again to continue") from error
        output.seek(0)
        return process.returncode, output.read().decode(errors="replace")


def _cause(output: str) -> str:
    """Return the line of a command's output that states the cause: DVC's error, else the last informative line."""
    error = re.search(r"(?m)^(?:ERROR: |WARNING: (?=Some of the cache files))(.+)", output)
    lines = [line for line in output.splitlines() if not re.match(_UNINFORMATIVE, line.strip())]
    return scrub(error[1] if error else lines[-1].strip() if lines else "nothing")[:300]
