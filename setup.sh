#!/usr/bin/env bash
# Create .venv from requirements.lock; called by the Makefile. Needs python3 (3.11 to 3.13) and OpenCV's system libraries.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || {
    echo "aupair: needs Python 3.11 to 3.13, got $("$python" --version 2>&1); set PYTHON=python3.11" >&2; exit 1; }
"$python" - <<'P'
import ctypes, sys
libraries = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0", "libxcb.so.1": "libxcb1"}
missing = []
for library, package in libraries.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        missing.append(package)
if missing:
    sys.exit(f"aupair: OpenCV needs system libraries; run: apt-get install -y {' '.join(missing)}")
P
[ -x .venv/bin/python ] || "$python" -m venv .venv || {
    echo "aupair: cannot make an environment; run: apt-get install -y python3-venv" >&2; exit 1; }
.venv/bin/python -m pip install -q --disable-pip-version-check "uv==${UV}"
export VIRTUAL_ENV="$PWD/.venv"
# Bytecode is compiled now: if PYTHONDONTWRITEBYTECODE is set, every process would compile torch and mlflow again.
.venv/bin/uv pip install --compile-bytecode --require-hashes -r requirements.lock
.venv/bin/uv pip install -q --no-deps --no-build-isolation -e .
