"""The whole flow in this process, on a tiny corpus: what it leaves, that it repeats, what it may read."""

import html
import shutil
from pathlib import Path

import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import SPLITS
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.scores import read_sigma, read_y_hat
from bare import run_bare
from conftest import artifact, contents

TRAIN_AGAIN = """
from pathlib import Path
from aupair import stages
from aupair.params import load_params

for name in ("train-pseudo-intensity", "train-uncertainty", "extract-features", "train-mapping"):
    stages.run_stage(name, load_params(Path("params.yaml")), trial=1)
"""


def test_every_stage_leaves_what_the_flow_says_and_nothing_else(finished: Path, tiny: Params) -> None:
    written = {artifact(finished, name, t) for s in stages.FLOW[:-1] for name in s.writes for t in tiny.trials}
    for path in written:
        assert contents(path), path
    for folder in ("work", "reports"):
        for path in (finished / folder).rglob("*"):
            assert path.is_dir() or any(path == w or w in path.parents for w in written), path


def test_a_row_for_every_frame_all_the_way(finished: Path, tiny: Params) -> None:
    frames = load_frames(artifact(finished, "labels"), artifact(finished, "faces"))
    assert len(frames) == 8 * 30
    assert [int(frames.of_split(split).sum()) for split in SPLITS] == [120, 60, 60]
    assert frames.ok.mean() > 0.9
    for trial in tiny.trials:
        for values in (
            read_y_hat(artifact(finished, "f", trial), len(frames)),
            read_sigma(artifact(finished, "h", trial), len(frames)),
        ):
            np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(frames.ok[:, None], values.shape))


def test_trials_differ(finished: Path) -> None:
    for name in ("f", "h", "features", "mapping"):
        assert contents(artifact(finished, name, 0)) != contents(artifact(finished, name, 1)), name


def test_training_repeats_to_the_byte_with_nothing_but_its_own_libraries(home: Path) -> None:
    names = ("f", "h", "features", "mapping")
    before = {name: contents(artifact(home, name, 1)) for name in names}
    for name in names:
        shutil.rmtree(artifact(home, name, 1))
    (home / "train_again.py").write_text(TRAIN_AGAIN)
    done = run_bare(home / "train_again.py", cwd=home)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert contents(artifact(home, name, 1)) == before[name], name


def test_no_stage_before_evaluate_can_read_the_conditions(home: Path, tiny: Params) -> None:
    readers = [stage.name for stage in stages.FLOW if "data" in stage.reads]
    assert readers == ["check-data", "preprocess-faces", "evaluate"], "all others do not get the folder at all"
    before = {name: contents(artifact(home, name)) for name in ("labels", "faces")}
    (home / "data" / "conditions.csv").unlink()
    shutil.rmtree(artifact(home, "faces"))
    for name in readers[:2]:
        stages.run_stage(name, tiny, root=home)
    assert {name: contents(artifact(home, name)) for name in before} == before


@pytest.mark.slow
def test_evaluate_goes_by_the_list_of_trials_and_not_by_what_lies_there(home: Path, tiny: Params) -> None:
    only = tiny.model_copy(update={"trials": (1,)})
    stages.run_stage("evaluate", only, root=home)
    assert store.read_json(artifact(home, "selection"))["trial"] == 1
    shutil.rmtree(home / "work" / "trials" / "0")
    stages.run_stage("evaluate", only, root=home)
    with pytest.raises(ArtifactError, match=r"^missing input: in .*trials/0/f; run train-pseudo-intensity first$"):
        stages.run_stage("evaluate", tiny, root=home)


def test_without_conditions_the_flow_ends_too(home: Path, tiny: Params) -> None:
    (home / "data" / "conditions.csv").unlink()
    stages.run_stage("evaluate", tiny, root=home)
    metrics = store.read_json(artifact(home, "metrics"))
    assert metrics["pair_accuracy"]["clear"] is None
    assert metrics["uncertainty"]["gain_at_80"]["cover"] is None
    assert "Synthetic" not in artifact(home, "table").read_text()
    page = html.unescape(artifact(home, "report").read_text())
    assert "pass it on only as the data's licence allows" in page, "real faces are somebody's"
