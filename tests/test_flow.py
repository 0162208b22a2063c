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
from aupair.ranking.ensemble import load_ensemble
from aupair.ranking.scores import read_sigma
from bare import run_bare
from conftest import artifact, contents

TRAIN_AGAIN = """
from pathlib import Path
from aupair import stages
from aupair.params import load_params

params = load_params(Path("params.yaml"))
stages.run_stage("train-pseudo-intensity", params, trial=1)
for name in ("train-uncertainty", "extract-features", "train-mapping"):
    stages.run_stage(name, params)
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
    folders = [artifact(finished, "f", trial) for trial in tiny.trials]
    for values in (
        load_ensemble(folders, len(frames), "all").y_hat,
        load_ensemble(folders, len(frames), "final").y_hat,
        read_sigma(artifact(finished, "h"), len(frames)),
    ):
        np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(frames.ok[:, None], values.shape))


def test_trials_differ(finished: Path) -> None:
    assert contents(artifact(finished, "f", 0)) != contents(artifact(finished, "f", 1))


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
    of_one = contents(artifact(home, "selection"))
    shutil.rmtree(artifact(home, "f", 0))
    stages.run_stage("evaluate", only, root=home)
    assert contents(artifact(home, "selection")) == of_one
    with pytest.raises(ArtifactError, match=r"^missing input: in .*work/f/0; run train-pseudo-intensity first$"):
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
