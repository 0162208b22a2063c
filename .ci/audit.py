"""Report known vulnerabilities of the packages in a lock file, with pip-audit (`make audit`).

    python .ci/audit.py requirements.lock                  queries PyPI
    python .ci/audit.py requirements.lock --osv all.zip    queries a downloaded export of osv.dev, offline

The export is https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip. A local server makes it available to pip-audit
with the API of osv.dev.

Exit codes: 0 no known vulnerability, 1 a known vulnerability, 3 a package could not be checked.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pip._internal.models.index import PyPI

PIP_AUDIT = "uv tool run --from pip-audit==2.10.1 pip-audit"
VULNERABLE, NO_DATA = 1, 3
HINT = (
    "download https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip where there is a network, "
    "and run `make audit OSV=all.zip`"
)

LONGEST = 10.0
"""Seconds within which PyPI must answer one question; pip-audit would ask it, and wait, for every package of the lock."""

Entry = dict[str, Any]


class OsvExport:
    """The vulnerabilities in an export of osv.dev: a zip with a JSON file for each."""

    def __init__(self, path: Path) -> None:
        self._of_package: dict[str, list[tuple[Entry, Entry]]] = defaultdict(list)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                entry = json.loads(archive.read(name))
                for affected in entry.get("affected", ()):
                    package = affected.get("package", {})
                    if package.get("ecosystem") == "PyPI":
                        self._of_package[canonicalize_name(package["name"])].append((entry, affected))

    def __len__(self) -> int:
        return len({entry["id"] for pairs in self._of_package.values() for entry, _ in pairs})

    def affecting(self, package: str, version: str) -> list[Entry]:
        """Return the entries that affect a version of a package."""
        entries = self._of_package.get(canonicalize_name(package), ())
        affecting = {entry["id"]: entry for entry, affected in entries if _is_affected(affected, version)}
        return [{**entry, "affected": _affected_by_name(entry, package)} for entry in affecting.values()]


def _affected_by_name(entry: Entry, package: str) -> list[Entry]:
    """Return the affected versions of a package, with its name in the canonical spelling that pip-audit compares."""
    name = canonicalize_name(package)
    return [
        {**affected, "package": {**affected["package"], "name": name}}
        for affected in entry["affected"]
        if canonicalize_name(affected["package"]["name"]) == name
    ]


def _is_affected(affected: Entry, version: str) -> bool:
    """Return whether a version is listed or lies in a range of versions; ranges of commits are ignored."""
    if version in affected.get("versions", ()):
        return True
    ranges = [part["events"] for part in affected.get("ranges", ()) if part["type"] == "ECOSYSTEM"]
    return any(_is_in_range(events, Version(version)) for events in ranges)


def _is_in_range(events: Sequence[Entry], version: Version) -> bool:
    """Return whether a version is in a range of the OSV schema: introduced at or before it, not fixed, not after the last."""
    try:
        introduced = [Version(event["introduced"]) for event in events if "introduced" in event]
        ends = [(Version(event["fixed"]), False) for event in events if "fixed" in event]
        ends += [(Version(event["last_affected"]), True) for event in events if "last_affected" in event]
    except InvalidVersion:
        return True  # the range cannot be evaluated; a false alarm is better than a missed vulnerability
    start = max((begin for begin in introduced if begin <= version), default=None)
    if start is None:
        return False
    return not any(start <= end and (end < version or (end == version and not included)) for end, included in ends)


@contextmanager
def served(export: OsvExport) -> Iterator[str]:
    """Serve an export on a free local port with the API of osv.dev, and yield the URL for queries."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            entries = export.affecting(query["package"]["name"], query["version"])
            body = json.dumps({"vulns": entries} if entries else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Suppress the log of requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()


def missing_data(pypi: str, releases: Sequence[tuple[str, str]]) -> str:
    """Return why a package index has no vulnerability data for any of these releases; empty if it has some."""
    reasons: list[str] = []

    def ask() -> None:
        reasons.append(min((_ask(f"{pypi}/pypi/{name}/{version}/json") for name, version in releases), key=bool))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(LONGEST)  # the limit of a connection holds for each address of a name, and not for the look-up
    return reasons[0] if reasons else f"{pypi} does not answer within {LONGEST:.0f} s"


def _ask(url: str) -> str:
    """Return why there is no vulnerability data at an address; empty if there is."""
    try:
        with urlopen(url, timeout=LONGEST) as response:
            return "" if "vulnerabilities" in json.load(response) else f"{url} has none"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"


def run_pip_audit(command: str, lock: Path, options: Sequence[str]) -> tuple[list[Entry], str]:
    """Return pip-audit's entry for each package (none if it failed), and the last line of its messages."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "audit.json"
        fixed = ["-r", str(lock), "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
        arguments = [*shlex.split(command), *fixed, "-f", "json", "-o", str(output), *options]
        done = subprocess.run(arguments, capture_output=True, text=True)
        message = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return (json.loads(output.read_text())["dependencies"], message) if output.exists() else ([], message)


def report(packages: Sequence[Entry], message: str) -> int:
    """Print a line for each vulnerability and a summary, and return the exit code."""
    skipped = [package for package in packages if "skip_reason" in package]
    checked = len(packages) - len(skipped)
    if not checked:
        reason = skipped[0]["skip_reason"] if skipped else message
        print(f"audit: no vulnerability data, nothing was checked: {reason[:200]}; {HINT}", file=sys.stderr)
        return NO_DATA
    vulnerable = 0
    for package in packages:
        for entry in package.get("vulns", ()):
            vulnerable += 1
            names, fixes = ", ".join([entry["id"], *entry["aliases"]]), ", ".join(entry["fix_versions"])
            print(f"{package['name']} {package['version']}: {names}; fixed in {fixes or 'no version'}")
    print(f"audit: {checked} packages checked, {vulnerable} known vulnerabilities", file=sys.stderr)
    if skipped:
        names = ", ".join(str(package["name"]) for package in skipped)
        print(f"audit: {len(skipped)} packages could not be checked: {names}", file=sys.stderr)
    return VULNERABLE if vulnerable else NO_DATA if skipped else 0


def main(arguments: Sequence[str]) -> int:
    """Audit a lock file and return the exit code."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities of the packages of a lock file.")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--osv", type=Path, help="an export of osv.dev (zip) instead of the network")
    parser.add_argument("--pypi", default=PyPI.url.rstrip("/"), help="the address at which PyPI is asked whether it has data at all")
    parser.add_argument("--pip-audit", default=PIP_AUDIT, help="the command of pip-audit")
    options = parser.parse_args(arguments)
    if options.osv is None:
        releases = re.findall(r"(?m)^([\w.-]+)==([\w.+!]+)", options.lock.read_text())
        if reason := missing_data(options.pypi, releases[:3]):
            what = f"no vulnerability data, none of the {len(releases)} packages of {options.lock.name} was checked"
            print(f"audit: {what}: {reason[:200]}; {HINT}", file=sys.stderr)
            return NO_DATA
        return report(*run_pip_audit(options.pip_audit, options.lock, []))
    try:
        export = OsvExport(options.osv)
    except (OSError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        print(f"audit: no export of osv.dev: in {options.osv}, got {error}; {HINT}", file=sys.stderr)
        return NO_DATA
    if not len(export):
        print(f"audit: no vulnerability of a PyPI package: in {options.osv}; {HINT}", file=sys.stderr)
        return NO_DATA
    with served(export) as url:
        return report(*run_pip_audit(options.pip_audit, options.lock, ["-s", "osv", "--osv-url", url]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
