"""Command lines under attack: whole ones, and damage to their words."""

import contextlib
import io
import os
import random
import shlex
import shutil
import sys
from pathlib import Path

from attack.mutators import EVIL

LINES = (
    "aupair synth new --subjects 4 --clips 1 --seconds 1 --fps 5 --seed 0 --pauses 0 --held 0 --labelled 1 --covers-every 1.8",
    "aupair synth new --subjects 4 --seconds 1 --fps 5 --rare AU4 --rare-rate 0.1 --coder-noise 0 --coder-misses 0 --asymmetry 0",
    "aupair split data --select 0.3 --validation 0.2 --seed 3 --overwrite",
    "aupair import csv frames.csv --out out --videos movies --first-frame 0 --threshold 1 --missing 9 --transfer copy",
    "aupair import csv events.csv --out out --videos movies --unit seconds --fps 25",
    "aupair run sample-pairs --set sample_pairs.frames=6 --set seed=0 --params params.yaml",
    "aupair run train-pseudo-intensity --trial 7",
    "aupair predict data/videos --out out --model bundle --abstain 0.2 --aus AU1 --device cpu",
    "aupair registry promote 1",
    "aupair registry list",
    "aupair report --root .",
    "aupair submission results --out out --form files --missing error",
    "aupair flow",
)
"""Commands that end soon, whether they are accepted or not."""

NUMBERS = (
    "-1",
    "0",
    "1e12",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "0.1e-300",
    str(2**63),
    "9" * 400,
    "1_000",
    "0x10",
    "1.5",
    "",
)


def damage(line: str, rng: random.Random) -> list[str]:
    """Replace, drop, repeat, swap or misspell words of a command line."""
    words = shlex.split(line)[1:]
    for _ in range(rng.choice((1, 1, 2))):
        k, action = rng.randrange(len(words)), rng.randrange(8)
        if action <= 3 and any(is_number(word) for word in words):
            words[rng.choice([k for k, word in enumerate(words) if is_number(word)])] = rng.choice(NUMBERS)
        elif action <= 4:
            words[k] = rng.choice(EVIL)
        elif action == 5 and len(words) > 1:
            del words[k]
        elif action == 6:
            words.insert(k, words[rng.randrange(len(words))])
        else:
            at = rng.randrange(len(words[k]) + 1)
            words[k] = words[k][:at] + rng.choice("abez-=, ") + words[k][at + 1 :]
    return [word.replace("\0", "") for word in words]  # no program gets one


def is_number(word: str) -> bool:
    """Return whether a word is a number."""
    return word.replace(".", "", 1).isdigit()


def call(words: list[str], root: Path, secret: str = "\0") -> str:
    """Run a command line below a folder; return its line, empty if it was accepted.

    Raises:
        AssertionError: it did not end with one line of `aupair: ` on standard error, or printed a secret.
    """
    from aupair.cli import main as cli

    os.chdir(root)
    output, errors = io.StringIO(), io.StringIO()
    sys.argv = ["aupair", *words]
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        for name in ("new", "out"):
            shutil.rmtree(root / name, ignore_errors=True)
    assert secret not in output.getvalue() + errors.getvalue(), f"{words}: a password was printed"
    lines = errors.getvalue().splitlines() or [""]
    if code and not errors.getvalue().strip() and (not words or words[-1] in ("registry", "import", "pipeline")):
        return "help"  # of a group without a command
    assert not code or lines[-1].startswith("aupair: "), f"{words}: {code}: {errors.getvalue()[-500:]}"
    assert not code or sum(line.startswith("aupair: ") for line in lines) == 1, f"{words}: {errors.getvalue()[-500:]}"
    return lines[-1] if code else ""


def run_line(root: Path, victim: Path, seed: int) -> None:
    """Run a damaged command line."""
    from aupair.errors import AupairError

    rng = random.Random(f"command {seed}")
    words = damage(rng.choice(LINES), rng)
    if line := call(words, root):
        raise AupairError(line)


SECTIONS = ("sample_pairs", "train_pseudo_intensity", "extract_features", "train_mapping", "evaluate")
EXTREMES = ("-1", "0", "1", "2", "0.5", "1.0e-300", "1.0e+30", "1000000000000", "null", "[]", "[0]")


def run_settings(root: Path, victim: Path, seed: int) -> None:
    """Run the flow from the stage of a setting on, on a copy, with an extreme number for it."""
    from aupair.errors import AupairError
    from aupair.params import load_params
    from aupair.stages import FLOW

    rng, params, trial = random.Random(f"setting {seed}"), load_params(root / victim), root.parent / "trial"
    section = rng.choice(SECTIONS)
    values = getattr(params, section).model_dump()
    numbers = [name for name, value in values.items() if isinstance(value, int | float | list | tuple)]
    setting = f"{section}.{rng.choice(numbers)}={rng.choice(EXTREMES)}"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(root, trial)
    first = next(k for k, stage in enumerate(FLOW) if section in stage.sections)
    for stage in FLOW[first:-1]:
        if line := call(["run", stage.name, "--set", setting], trial):
            raise AupairError(f"{setting}: {line}")


ASKING = ("registry list", "registry promote 1", "predict data/videos --out out --device cpu", "run register-model")
SECRETS = ("hunter2", "p@ss/word", "a:b@c", "sp ace", "per%25cent", "quo'te", "que?ry#x", "\u00fcber", "[brackets]")
SCHEMES = ("http", "https", "postgresql", "postgresql+psycopg", "mysql", "mssql", "ftp", "databricks", "nonsense")


def use_address(root: Path, victim: Path, seed: int) -> None:
    """Ask an MLflow store that is not there; its address has a password."""
    from aupair.errors import AupairError

    rng = random.Random(f"address {seed}")
    secret = rng.choice(SECRETS)
    os.environ["MLFLOW_TRACKING_URI"] = (
        f"{rng.choice(SCHEMES)}://user:{secret}@127.0.0.1:1/{rng.choice(('', 'db', '?a=b'))}"
    )
    try:
        if line := call(rng.choice(ASKING).split(), root, secret):
            raise AupairError(line)
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
