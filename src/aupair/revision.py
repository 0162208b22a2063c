"""The git commit of the code and settings, which reports state as their origin."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

COMMIT, DATE = "AUPAIR_GIT_COMMIT", "AUPAIR_GIT_DATE"
"""The environment variables of an image that hold its commit and the date of that commit."""

_DIRTY = "-dirty"
"""The suffix of an image's commit if it was built with uncommitted changes."""

_WRITTEN_BY_A_RUN = ("**/dvc.lock", "**/.gitignore", *(f"**/{folder}/**" for folder in ("reports", "work")))
"""Files that a run of the flow may change itself; they do not count as uncommitted changes."""


class Revision(NamedTuple):
    """A git commit.

    Attributes:
        commit: its full hash.
        date: the day on which it was made, YYYY-MM-DD; empty if unknown.
        changed: whether tracked files had uncommitted changes.
    """

    commit: str
    date: str
    changed: bool

    def __str__(self) -> str:
        """Return the first digits of the commit, its day and a note on uncommitted changes."""
        date = f" of {self.date}" if self.date else ""
        return f"{self.commit[:12]}{date}{', with uncommitted changes' if self.changed else ''}"


def get_revision(folder: Path) -> Revision | None:
    """Return the commit of the image, else that of the git repository of a folder, which need not exist yet.

    Returns:
        The commit; None if git is missing, or the folder is not in a repository with a commit.
    """
    if image := os.environ.get(COMMIT):
        return Revision(image.removesuffix(_DIRTY), os.environ.get(DATE, ""), image.endswith(_DIRTY))
    path = Path(folder).absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.is_dir())
    head = _git(existing, "log", "-1", "--format=%H %cs")
    if not head:
        return None
    commit, date = head.split()
    excluded = (f":(top,exclude,glob){pattern}" for pattern in _WRITTEN_BY_A_RUN)
    changes = _git(existing, "status", "--porcelain", "--untracked-files=no", "--", ":/", *excluded)
    return Revision(commit, date, bool(changes))


def _git(folder: Path, *arguments: str) -> str:
    """Return the output of git in a folder; empty if git is missing or fails."""
    try:
        process = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:  # git is not installed; the revision is optional
        return ""
    return "" if process.returncode else process.stdout.strip()
