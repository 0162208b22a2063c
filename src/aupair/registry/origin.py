"""The origin of an MLflow run: the user, the command, and the commit of the code, as tags that MLflow's web UI shows."""

import getpass
import os
import subprocess

_SOURCE, _TYPE = "mlflow.source.name", "mlflow.source.type"


def origin_tags(command: str, is_job: bool = False) -> dict[str, str]:
    """Return the tags for the user, the command and the commit of a run.

    Args:
        command: the command that computes the run, such as `dvc repro`.
        is_job: whether the run is on a cluster, where the process does not run as the user.
    """
    tags = {_SOURCE: command, _TYPE: "JOB" if is_job else "LOCAL"} | git_commit_tag()
    if "git.commit" in tags:
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    return tags if is_job else tags | _user_tag()


def git_commit_tag() -> dict[str, str]:
    """Return the tag git.commit: the commit of the image (AUPAIR_GIT_COMMIT), else that of the working folder.

    It ends in `-dirty` if files differ from the commit; dvc.lock, which each run writes, does not count. The result is
    empty if git is missing, or the folder is not in a repository with a commit.
    """
    if of_image := os.environ.get("AUPAIR_GIT_COMMIT"):
        return {"git.commit": of_image}
    commit = _git("rev-parse", "--verify", "HEAD")
    if not commit:
        return {}
    return {"git.commit": commit + ("-dirty" if _git("status", "--porcelain", "--", ".", ":!dvc.lock") else "")}


def _git(*arguments: str) -> str:
    """Return the output of a git command; empty if it fails or git is not installed."""
    try:
        process = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except OSError:  # git is not installed; the tag is optional
        return ""
    return "" if process.returncode else process.stdout.strip()


def _user_tag() -> dict[str, str]:
    """Return the tag with the name of the user; no tag if the user id has no name, as in some containers."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):
        return {}
