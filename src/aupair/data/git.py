"""The data folder of a git repository: a shallow clone, then `dvc pull data.dvc`, both as commands of their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from aupair import store
from aupair.data.hashing import dvc_hash
from aupair.data.s3 import Patience
from aupair.errors import AupairError, AuthError, DataError, ParamsError, UnreachableError, scrub
from aupair.log import Log

_GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
"""Variables that would send git to another repository than the folder it runs in."""

# What git and DVC print, by cause.
_NO_REVISION = (
    r"couldn't find remote ref|not our ref|unadvertised object|does not take a path argument|is not a tree"
    r"|unable to read tree"
)
_REFUSED = (
    r"Authentication failed|could not read (Username|Password)|Permission denied|terminal prompts disabled"
    r"|error: 40[13]|Host key verification failed|Access ?Denied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|Unable to locate credentials|NoCredentials|Partial credentials"
)
_UNREACHABLE = (
    r"Could not resolve host|Couldn't connect|Could not connect|Failed to connect|Connection (refused|timed out|reset)"
    r"|Connection was closed|timed out|SSL|certificate|early EOF|hung up|Operation too slow|error: 5\d\d|unreachable"
)
_UNINFORMATIVE = r"^(Please make sure|and the repository exists|fatal: Could not read from remote repository|From )"


def check_source(source: str, revision: str, remote: str) -> None:
    """Check the address of a repository, and that no name would be read as an option or as several names.

    Raises:
        ParamsError: it is not a URL, a password in it would be taken for a path and printed, or a name is invalid.
    """
    scheme, _, rest = source.removeprefix("git+").partition("://")
    host, _, path = rest.partition("/")
    known = scheme in ("https", "http", "ssh", "file")
    if not known or not path or (scheme == "file") == bool(host) or (scheme != "file" and "@" in path):
        raise ParamsError(
            "not the address of a git repository",
            expected="git+https://host/repository.git without an @ after the host",
            todo="name a branch, tag or commit as the revision, and write / in a password as %2F",
        )
    for what, name in (("revision", revision), ("remote", remote)):
        if name and not re.fullmatch(r"(?!-)[^\s~^:?*\[\\\x00-\x1f]+", name):
            raise ParamsError(f"not the name of a {what}", got=repr(name))


def fetch_data(source: str, revision: str, remote: str, folder: Path, log: Log, patience: Patience) -> str:
    """Bring the folder `data` of a git repository to `folder/whole`, and return the commit.

    What DVC has pulled stays in `folder/cache`: a second call pulls only the rest.

    Raises:
        ParamsError: there is no such DVC remote.
        DataError: no such repository or revision, no data.dvc, files that the remote lacks or that are damaged.
        AuthError, UnreachableError: the server of git or DVC refuses or does not answer.
    """
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
    _pull(remote, repository, where, patience)
    _verify(repository, folder / "cache", log)
    with store.writing(folder):
        (folder / "whole").rmdir()
        (repository / "data").rename(folder / "whole")
        for path in (folder / "whole").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # DVC protects what it has linked to its cache
    return commit


def _clone(url: str, revision: str, repository: Path, patience: Patience) -> str:
    """Check out one revision, without history where the server can do that, and return its commit."""

    def git(*arguments: str) -> str:
        code, output = _run(["git", *arguments], repository, patience)
        if code:
            raise _git_error(output, url, revision)
        return output

    git("init", "-q")
    try:
        git("fetch", "-q", "--no-tags", "--depth=1", url, revision or "HEAD")
        git("checkout", "-q", "--detach", "FETCH_HEAD")
    except DataError:
        if not re.fullmatch(r"[0-9a-f]{4,64}", revision):
            raise
        # a commit that the server does not give by its name, or the beginning of one
        git("fetch", "-q", "--tags", url, "+refs/heads/*:refs/remotes/origin/*")
        git("checkout", "-q", "--detach", revision)
    return git("rev-parse", "HEAD").split()[-1]


def _git_error(output: str, url: str, revision: str) -> AupairError:
    """Return the error for what git printed when it failed."""
    where = scrub(url)
    if re.search(_NO_REVISION, output):
        expected = "a branch, a tag or a commit"
        return DataError("no such revision", where=where, got=revision or "HEAD", expected=expected)
    no_repository = DataError("no such git repository", where=where, got=_cause(output), todo="check the URL")
    # a name must not be taken for a cause
    return _server_error("the git server", where, scrub(output).replace(where.partition("://")[2], ""), no_repository)


def _pull(remote: str, repository: Path, where: str, patience: Patience) -> None:
    """Pull data.dvc, with a cache beside the clone that a second call goes on with."""
    with store.writing(repository):
        config = '[cache]\n    dir = ../../cache\n    type = "hardlink,copy"\n'
        (repository / ".dvc" / "config.local").write_text(config)
    # -P: no module of the repository may pose as one of DVC's
    command = [sys.executable, "-P", "-m", "dvc", "pull", *(("-r", remote) if remote else ()), "data.dvc"]
    code, output = _run(command, repository, patience)
    if code and re.search(r"No remote provided|remote '.*' doesn't exist", output):
        got = remote or "no default one"
        raise ParamsError("no such DVC remote", where=where, got=got, todo="name one as remote")
    if code:
        what, todo = "the DVC remote lacks files of data.dvc", "run `dvc push` where they are"
        lacking = DataError(what, where=where, got=_cause(output), todo=todo)
        raise _server_error("the DVC remote", where, output, lacking)
    if not (repository / "data").is_dir():
        raise DataError("data.dvc tracks no folder data", where=where, todo="run `dvc add data` there")


def _server_error(server: str, where: str, output: str, otherwise: AupairError) -> AupairError:
    """Return the error for the output of a command that failed: one of the server, or `otherwise`."""
    got = _cause(output)
    if re.search(_REFUSED, output):
        todo = "give it credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3), and check the address"
        return AuthError(f"{server} refuses access", where=where, got=got, todo=todo)
    if re.search(_UNREACHABLE, output):
        todo = "check host and network; run it again to go on"
        return UnreachableError(f"{server} does not answer", where=where, got=got, todo=todo)
    return otherwise


def _verify(repository: Path, cache: Path, log: Log) -> None:
    """Compare the folder's hash with data.dvc: DVC trusts its remotes and accepts a damaged file.

    Raises:
        DataError: the hashes differ; the cache, which has the damaged file, is deleted.
    """
    entry = yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]
    if entry.get("hash") != "md5":
        log.line("not verified: data.dvc was written by DVC 2, which hashed text in another way")
        return
    got = dvc_hash(repository / "data", log)
    if got != entry["md5"]:
        shutil.rmtree(cache)
        raise DataError(
            "an object that does not match its checksum",
            where="the DVC remote's data",
            got=got,
            expected=entry["md5"],
            todo="run `dvc push` again where the files are good",
        )


def _run(command: Sequence[str], folder: Path, patience: Patience) -> tuple[int, str]:
    """Run a command that asks nothing and ends in bounded time; return its exit code and its output."""
    environment = {
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
        "AWS_RETRY_MODE": "standard",  # DVC's own retries go on for most of a minute
        "AWS_MAX_ATTEMPTS": "3",
        **{key: value for key, value in os.environ.items() if key not in _GIT_PLACES},
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1",
        "GIT_HTTP_LOW_SPEED_TIME": str(max(1, round(patience.timeout))),
        "DVC_NO_ANALYTICS": "true",
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise AupairError("a program is not there", got=command[0], todo=f"install {command[0]}") from error
    with process:
        try:
            output, _ = process.communicate(timeout=patience.longest)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # git's helper programs too
            if isinstance(error, subprocess.TimeoutExpired):
                what, got = f"{command[0]} did not end", f"{patience.longest:g} s"
                raise UnreachableError(what, got=got, todo="run it again to go on") from error
            raise
    return process.returncode, output


def _cause(output: str) -> str:
    """Return the line of a command's output that names a cause: DVC's error, else the last informative line."""
    if error := re.search(r"(?m)^(?:ERROR: |WARNING: (?=Some of the cache files))(.+)", output):
        return scrub(error[1])[:300]
    lines = [line.strip() for line in output.splitlines()]
    causes = [line for line in lines if line and not re.match(_UNINFORMATIVE, line)]
    return scrub(causes[-1])[:300] if causes else "nothing"
