"""The data folder of a git repository: a shallow clone, then `dvc pull data.dvc`, both as commands of their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from aupair.data.hashing import dvc_hash
from aupair.data.staging import Patience, Staging, prepare, scrub, writing
from aupair.errors import AupairError, AuthError, DataError, ParamsError, UnreachableError
from aupair.log import Log

GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
"""Variables that would send git to another repository than the folder it runs in."""

NO_REVISION = r"couldn't find remote ref|not our ref|unadvertised object"
ASKED = (
    r"Authentication failed|could not read (Username|Password)|Permission denied|terminal prompts disabled"
    r"|error: 40[13]|Host key verification failed|Access ?Denied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|Unable to locate credentials|NoCredentials|Partial credentials"
)
UNREACHED = (
    r"Could not resolve host|Couldn't connect|Could not connect|Failed to connect|Connection (refused|timed out|reset)"
    r"|Connection was closed|timed out|SSL|certificate|early EOF|hung up|Operation too slow|error: 5\d\d|unreachable"
)
GIT_CHATTER = r"^(Please make sure|and the repository exists|fatal: Could not read from remote repository|From )"


def fetch_data(source: str, revision: str, remote: str, target: Path, log: Log, patience: Patience) -> str:
    """Bring the folder `data` of a git repository to a target, and give the commit.

    What DVC has pulled stays in the staging folder until all is there: a second call pulls only the rest.

    Raises:
        ParamsError: the source, the revision or the remote cannot be one.
        DataError: no such repository or revision, no data.dvc, files that the remote lacks or that are damaged.
        AuthError, UnreachableError: what git's or DVC's server said.
    """
    url = _url(source)
    _check_name("revision", revision)
    _check_name("remote", remote)
    staging = prepare(target, scrub(source), revision)
    repository = staging.folder / "repository"
    with writing(staging.target):
        for leftover in (repository, staging.whole):
            shutil.rmtree(leftover, ignore_errors=True)
        repository.mkdir()
    log.line(f"cloning {scrub(source)}")
    commit = _clone(url, revision, repository, patience)
    for name in ("data.dvc", ".dvc"):
        if not (repository / name).exists():
            raise DataError(
                f"no {name}", where=f"{scrub(source)} at {commit[:12]}", todo="run `dvc add data` there and commit it"
            )
    log.line(f"pulling data.dvc at {commit[:12]}")
    _pull(remote, repository, scrub(source), patience)
    _verify(repository, staging, log)
    with writing(staging.target):
        (repository / "data").rename(staging.whole)
        for path in staging.whole.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # DVC protects what it has linked to its cache
    staging.finish()
    return commit


def _url(source: str) -> str:
    """Give git's URL of a source.

    Raises:
        ParamsError: it is not a URL, or a password in it would be taken for a path and printed.
    """
    url = source.removeprefix("git+")
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if not path or (scheme == "file") == bool(host) or (scheme != "file" and "@" in path):
        raise ParamsError(
            "not the address of a git repository",
            expected="git+https://host/repository.git without an @ after the host",
            todo="name a branch, tag or commit as the revision, and write / in a password as %2F",
        )
    return url


def _check_name(what: str, name: str) -> None:
    """Refuse what git or DVC would read as an option or as several names."""
    if name and not re.fullmatch(r"(?!-)[^\s~^:?*\[\\\x00-\x1f]+", name):
        raise ParamsError(f"not the name of a {what}", got=repr(name))


def _clone(url: str, revision: str, repository: Path, patience: Patience) -> str:
    """Check out one revision, without history where the server can, and give its commit."""
    git = ("git", "-C", str(repository))
    _git([*git, "init", "-q"], url, patience)
    code, said = _run([*git, "fetch", "-q", "--no-tags", "--depth=1", url, revision or "HEAD"], repository, patience)
    found = "FETCH_HEAD"
    if code and re.search(NO_REVISION, said) and re.fullmatch(r"[0-9a-f]{4,64}", revision):
        # a commit that the server gives to nobody by its name, or the beginning of one
        _git([*git, "fetch", "-q", "--tags", url, "+refs/heads/*:refs/remotes/origin/*"], url, patience)
        found = f"{revision}^{{commit}}"
        code, _ = _run([*git, "rev-parse", "-q", "--verify", found], repository, patience)
    if code and re.search(NO_REVISION, said):
        raise DataError(
            "no such revision", where=scrub(url), got=revision or "HEAD", expected="a branch, a tag or a commit"
        )
    if code:
        raise _refused(said, url)
    _git([*git, "checkout", "-q", "--detach", found], url, patience)
    return _git([*git, "rev-parse", "HEAD"], url, patience).split()[-1]


def _git(command: Sequence[str], url: str, patience: Patience) -> str:
    """Run git, and give what it printed."""
    code, said = _run(command, Path(command[2]), patience)
    if code:
        raise _refused(said, url)
    return said.strip()


def _refused(said: str, url: str) -> AupairError:
    """Give the error for what git said."""
    where, got = scrub(url), _last(said)
    said = scrub(said).replace(where.partition("://")[2], "")  # a name must not be taken for a cause
    if re.search(ASKED, said):
        todo = "give git a key or a credential helper; the server may also say this of a repository that is not there"
        return AuthError("the git server asks who you are", where=where, got=got, todo=todo)
    if re.search(UNREACHED, said):
        return UnreachableError("the git server does not answer", where=where, got=got, todo="check host and network")
    return DataError("no such git repository", where=where, got=got, todo="check the URL")


def _pull(remote: str, repository: Path, where: str, patience: Patience) -> None:
    """Pull data.dvc into a cache beside the clone, so that it outlives it."""
    with writing(repository):
        (repository / ".dvc" / "config.local").write_text(
            '[cache]\n    dir = ../../cache\n    type = "hardlink,copy"\n'
        )
    # -P: no module of the repository may pose as one of DVC's
    command = [sys.executable, "-P", "-m", "dvc", "pull", *(("-r", remote) if remote else ()), "data.dvc"]
    code, said = _run(command, repository, patience)
    if code == 0:
        if not (repository / "data").is_dir():
            raise DataError("data.dvc tracks no folder data", where=where, todo="run `dvc add data` there")
        return
    cause = re.search(r"(?m)^(?:ERROR: |WARNING: (?=Some of the cache files))(.+)", said)
    got = scrub(cause[1])[:300] if cause else _last(said)
    if re.search(r"No remote provided|remote '.*' doesn't exist", said):
        raise ParamsError("no such DVC remote", where=where, got=remote or "no default one", todo="name one as remote")
    if re.search(ASKED, said):
        todo = "give it credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3)"
        raise AuthError("the DVC remote refuses", where=where, got=got, todo=todo)
    if re.search(UNREACHED, said):
        raise UnreachableError(
            "the DVC remote does not answer", where=where, got=got, todo="check it; run it again to go on"
        )
    raise DataError(
        "the DVC remote lacks files of data.dvc", where=where, got=got, todo="run `dvc push` where they are"
    )


def _verify(repository: Path, staging: Staging, log: Log) -> None:
    """Hold the folder against data.dvc: DVC believes its remotes and takes a damaged file for good."""
    import yaml

    entry = yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]
    if entry.get("hash") != "md5":
        log.line("not verified: data.dvc was written by DVC 2, which hashed text in another way")
        return
    got = dvc_hash(repository / "data", log)
    if got != entry["md5"]:
        shutil.rmtree(staging.folder)
        raise DataError(
            "an object that does not match its checksum",
            where="the DVC remote's data",
            got=got,
            expected=entry["md5"],
            todo="run `dvc push` again where the files are good",
        )


def _run(command: Sequence[str], folder: Path, patience: Patience) -> tuple[int, str]:
    """Run a command that asks nothing and ends in bounded time; give its exit code and what it said."""
    environment = {key: value for key, value in os.environ.items() if key not in GIT_PLACES} | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1",
        "GIT_HTTP_LOW_SPEED_TIME": str(max(1, round(patience.timeout))),
        "DVC_NO_ANALYTICS": "true",
    }
    for key, value in (
        ("DVC_SITE_CACHE_DIR", str(folder.parent / "site")),
        ("AWS_RETRY_MODE", "standard"),  # DVC's own tries go on for most of a minute
        ("AWS_MAX_ATTEMPTS", "3"),
    ):
        environment.setdefault(key, value)
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
            said, _ = process.communicate(timeout=patience.longest)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnreachableError(
                    f"{command[0]} did not end", got=f"{patience.longest:g} s", todo="run it again to go on"
                ) from error
            raise
    return process.returncode, said


def _last(said: str) -> str:
    """Give the last line that means something."""
    lines: Iterable[str] = (line.strip() for line in said.splitlines())
    means = [line for line in lines if line and not re.match(GIT_CHATTER, line)]
    return scrub(means[-1])[:300] if means else "nothing"
