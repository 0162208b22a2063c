"""predict --subjects: a person's clips are scored, then decided together; every frame of the videos is a face."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from aupair.errors import DataError, ParamsError
from aupair.faces.row import FaceRow
from aupair.inference.predict import predict_videos
from aupair.inference.predictions import VideoScores
from aupair.mapping.columns import columns, pool_clips
from aupair.mapping.extractor import RouteValues
from aupair.params import parse_params
from brightness import A, AboveNeutral, WholeFrames, make_recognizer
from conftest import rows_of
from videos import write_grey_video

DARK, BRIGHT = 40, 200


def recognizer(neutral: str = "person", batch: int = 4) -> WholeFrames:
    """Active where the brightness is .5 above its neutral, the lowest of the video or of the person."""
    section = {"neutral": neutral, "batch": batch, "percentiles": [0], "context_points": 0}
    names = [name for name, _ in columns(parse_params({"extract_features": section}).extract_features, True)]
    own, low = names.index("own.y"), names.index(f"{neutral}.p0")
    return WholeFrames(**vars(make_recognizer({"extract_features": section}, 256, AboveNeutral(own, low))))


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """One person smiles throughout in `held`, not in `calm`; nobody knows whose `other` is."""
    return [
        write_grey_video(tmp_path / "in" / "held.avi", *[BRIGHT] * 6),
        write_grey_video(tmp_path / "in" / "other.avi", *[BRIGHT] * 5),
        write_grey_video(tmp_path / "in" / "calm.avi", *[DARK] * 7, BRIGHT),
    ]


def listed(path: Path, *rows: str, header: str = "video,subject") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def decisions(table: Path) -> str:
    return "".join(row["AU12"] or "-" for row in rows_of(table))


def test_a_held_expression_is_seen_beside_the_persons_other_clip(tmp_path: Path, clips: list[Path]) -> None:
    people = listed(tmp_path / "people.csv", "held,anna", "calm,anna", "unused,bob")
    predict_videos(clips, recognizer(), tmp_path / "alone")
    rows = predict_videos(clips, recognizer(), tmp_path / "out", subjects=people)
    assert [decisions(tmp_path / "alone" / f"{name}.csv") for name in ("held", "calm")] == ["000000", "00000001"]
    assert [decisions(tmp_path / "out" / f"{name}.csv") for name in ("held", "calm")] == ["111111", "00000001"]
    for folder in ("alone", "out"):
        assert decisions(tmp_path / folder / "other.csv") == "00000", "a video that is not listed is a person"
    assert [row.video for row in rows] == [str(clip) for clip in clips], "as they were named"


def test_neither_the_order_of_the_videos_nor_the_batch_nor_processes_change_a_byte(
    tmp_path: Path, clips: list[Path]
) -> None:
    people = listed(tmp_path / "people.csv", "calm,anna", "held,anna")
    predict_videos(clips, recognizer(), tmp_path / "one", subjects=people)
    predict_videos(clips[::-1], recognizer(batch=1), tmp_path / "two", subjects=people)
    predict_videos(clips, recognizer(), tmp_path / "three", subjects=people, workers=2)
    for clip in clips:
        one, two, three = ((tmp_path / name / f"{clip.stem}.csv").read_bytes() for name in ("one", "two", "three"))
        assert one == two == three


def test_a_clip_that_cannot_be_read_is_a_row_and_the_persons_others_go_on(tmp_path: Path, clips: list[Path]) -> None:
    bad = tmp_path / "in" / "bad.avi"
    bad.write_bytes(b"no video" * 20)
    people = listed(tmp_path / "people.csv", "held,anna", "bad,anna", "calm,anna")
    rows = predict_videos([bad, *clips], recognizer(), tmp_path / "out", subjects=people)
    assert [row.status for row in rows] == ["unreadable", "ok", "ok", "ok"]
    assert decisions(tmp_path / "out" / "held.csv") == "111111"
    summary = rows_of(tmp_path / "out" / "summary.csv")
    assert [Path(row["video"]).stem for row in summary] == ["bad", "held", "other", "calm"]


def test_all_clips_of_a_person_unreadable(tmp_path: Path, clips: list[Path]) -> None:
    for clip in (clips[0], clips[2]):
        clip.write_bytes(b"no video" * 20)
    people = listed(tmp_path / "people.csv", "held,anna", "calm,anna")
    rows = predict_videos(clips, recognizer(), tmp_path / "out", subjects=people)
    assert [row.status for row in rows] == ["unreadable", "ok", "unreadable"]


def test_a_person_is_scored_before_anything_of_them_is_decided_and_no_image_is_kept(
    tmp_path: Path, clips: list[Path]
) -> None:
    order: list[str] = []

    class Spy(WholeFrames):
        def score_rows(self, rows: Iterable[FaceRow]) -> VideoScores:
            scores = super().score_rows(rows)
            order.append(f"score {len(scores.time)}")
            assert sum(values.nbytes for values in vars(scores).values() if isinstance(values, np.ndarray)) < 200 * 8
            return scores

        def decide_video(self, scores: VideoScores, pool: list[RouteValues] | None = None) -> object:
            pooled = len(scores.time) if pool is None else sum(len(clip.time) for clip in pool)
            order.append(f"decide {len(scores.time)} of {pooled}")
            return super().decide_video(scores, pool)

    people = listed(tmp_path / "people.csv", "held,anna", "calm,anna")
    predict_videos(clips, Spy(**vars(recognizer())), tmp_path / "out", subjects=people)
    assert order == ["score 6", "score 8", "decide 6 of 14", "decide 8 of 14", "score 5", "decide 5 of 5"]


def test_only_frames_with_a_face_are_pooled(clips: list[Path]) -> None:
    scored = [recognizer().score_video(clip) for clip in clips[:2]]
    scored[0].y_hat[2], scored[0].sigma[2] = np.nan, np.nan
    one, two = (clip.scores("columns") for clip in recognizer().smooth(scored))
    pool = pool_clips([one, two])
    assert pool.sigma is not None
    assert len(pool.y) == len(pool.sigma) == 10
    assert np.isfinite(pool.y).all()
    assert pool_clips([one._replace(y=one.y * np.nan)]).y.shape == (0, A)


def test_a_model_of_the_videos_neutral_face_has_no_use_for_it(tmp_path: Path, clips: list[Path]) -> None:
    people = listed(tmp_path / "people.csv", "held,anna", "calm,anna")
    with pytest.raises(ParamsError) as caught:
        predict_videos(clips, recognizer("video"), tmp_path / "out", subjects=people)
    assert str(caught.value) == (
        "--subjects does not fit this model, got neutral: video, expected a model of extract_features.neutral: person; leave it out"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ["held,anna", "held,bob"],
            "video,subject",
            r"a video has two subjects: in .*line 3, got held: bob, expected",
        ),
        (
            ["held.avi,anna"],
            "video,subject",
            r"the table lists none of the videos: in .*people\.csv, expected names .* such as held",
        ),
        (["held,anna"], "clip,subject", r"wrong header: in .*line 1"),
        (["held"], "video,subject", r"a ragged row: in .*line 2"),
    ],
)
def test_a_list_that_cannot_be_right_is_one_line(
    tmp_path: Path, clips: list[Path], rows: list[str], header: str, message: str
) -> None:
    people = listed(tmp_path / "people.csv", *rows, header=header)
    with pytest.raises(DataError, match=message) as caught:
        predict_videos(clips, recognizer(), tmp_path / "out", subjects=people)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="not a readable table"):
        predict_videos(clips, recognizer(), tmp_path / "out", subjects=tmp_path / "none.csv")
    assert not (tmp_path / "out").exists()


def test_served_faces_are_one_person_of_one_video() -> None:
    images = np.repeat(np.array([BRIGHT, DARK], np.uint8), 3)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    predictions = recognizer().predict_faces(images, 10.0)
    assert predictions.decision[:, 3].tolist() == [1, 1, 1, 0, 0, 0]
