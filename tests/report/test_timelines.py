"""Which part of a video is shown, and that its timeline shows what is true, decided, wrong and unsure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from aupair.aus import AFFWILD2
from aupair.report.figures import GREEN, ORANGE, Drawing
from aupair.report.timelines import (
    SECONDS,
    UNKNOWN,
    Series,
    _bin_means,
    _runs,
    draw_timeline,
    label_changes,
    nearest_to_even,
    stretch,
    validation_series,
    videos_to_show,
)
from report.worlds import evaluation_of, frames_of

A = len(AFFWILD2)


def test_the_videos_with_most_changes_are_shown_of_different_people_first() -> None:
    frames = frames_of([2, 9, 8, 3], subjects=[0, 1, 1, 2])
    assert videos_to_show(frames, 3) == [1, 3, 0]
    assert videos_to_show(frames, 9) == [1, 3, 0, 2], "of the same person where there is nobody else"
    frames.split[frames.video == 1] = 0
    frames.ok[frames.video == 3] = False
    frames.labels[frames.video == 2] = 1
    assert videos_to_show(frames, 4) == [0, 2], "another split, no face; always active: nothing to see"


def test_labels_that_are_missing_are_no_changes() -> None:
    labels = np.array([[0, 1, -1], [-1, 1, -1], [1, 0, 1], [1, -1, 0]])
    assert label_changes(labels).tolist() == [[False] * 3, [False, True, False], [False, False, True]]
    frames = frames_of([0, 2], subjects=[0, 1])
    frames.labels[frames.video == 1] = np.where(frames.labels[frames.video == 1] == 0, -1, 1)
    frames.labels[4, 7] = 1
    assert videos_to_show(frames, 1) == [0], "never labelled as inactive: nothing that is known to come and go"


def test_the_stretch_of_a_long_video_holds_its_changes() -> None:
    frames = frames_of([5], subjects=[0], length=200)
    frames.labels[:] = 0
    frames.labels[150:160, :5] = 1
    rows = stretch(frames, slice(0, 200))
    assert rows.start <= 150
    assert rows.stop >= 160
    assert frames.time[rows][-1] - frames.time[rows][0] <= SECONDS


def test_faces_are_at_even_distances_and_only_of_frames_that_have_one() -> None:
    time, ok = np.arange(40) / 2, np.ones(40, bool)
    ok[5:20] = False
    frames = nearest_to_even(time, ok)
    assert frames == sorted(frames)
    assert ok[frames].all()
    assert frames[-1] == 37, "the middle of the last tenth"
    assert nearest_to_even(time, np.zeros(40, bool)) == []


def test_the_strips_of_a_validation_video() -> None:
    frames = frames_of([3], subjects=[0])
    evaluation = evaluation_of(frames)
    evaluation.decisions[4:7, 2] = True
    evaluation.confidence[8:, 2] = 0.1
    frames.labels[0] = -1
    frames.ok[9] = False
    strips = validation_series(evaluation, frames, slice(0, 10)).strips
    rows = {name: np.flatnonzero(layers[0][0][:, 2]).tolist() for name, layers in strips.items()}
    assert rows == {"truth": [3, 4, 5], "decided": [4, 5, 6], "wrong": [3, 6], "unsure": [8]}
    assert np.flatnonzero(strips["truth"][1][0][:, 2]).tolist() == [0], "not annotated"


def test_the_smoothed_value_is_drawn_where_it_decides() -> None:
    frames = frames_of([3], subjects=[0])
    plain = evaluation_of(frames)
    assert validation_series(plain, frames, slice(0, 10)).smoothed is None, "a route that does not smooth"
    smoothed = np.full(frames.labels.shape, 0.25, np.float32)
    outputs = replace(plain.outputs, smoothed={plain.outputs.with_route: smoothed})
    mappings = {au: {"mapping": "with_uncertainty"} for au in AFFWILD2} | {"AU2": {"mapping": "without_uncertainty"}}
    evaluation = replace(plain, outputs=outputs, selection=mappings)
    series = validation_series(evaluation, frames, slice(2, 8))
    drawing = draw_timeline(series, "a", [0, 1])
    with_it, without_it = ([line for line in axis.lines if line.get_color() == GREEN] for axis in drawing.figure.axes)
    np.testing.assert_allclose(with_it[0].get_ydata(), [0.25] * 6)
    assert np.isnan(without_it[0].get_ydata()).all()
    assert "smoothed y_hat" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert drawing.figure.axes[1].get_xlabel() == "time in the video (s)"


def test_runs_equal_a_loop_and_end_with_the_next_frame() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 50):
        mask, time = rng.random(n) < 0.5, np.arange(n) / 10
        bars = _runs(mask, time)
        assert [any(start <= t < start + width - 1e-9 for start, width, _ in bars) for t in time] == mask.tolist()
    bars = _runs(np.array([1, 1, 0, 0.5]), np.array([0.0, 0.1, 0.2, 0.5]))
    assert bars == [(0.0, 0.2, 1.0), (0.5, pytest.approx(0.1), 0.5)]
    assert _runs(np.zeros(0), np.zeros(0)) == []


def test_bins_of_a_long_video() -> None:
    values = np.arange(5003.0)[:, None]
    values[9:12] = np.nan
    means = _bin_means(values, 3)
    assert len(means) == 1668
    assert np.isnan(means[3]), "of three frames without a face"
    known = np.delete(np.arange(1668), 3)
    np.testing.assert_allclose(means[known, 0], [np.nanmean(values[3 * k : 3 * k + 3]) for k in known])
    rng = np.random.default_rng(0)
    y_hat, active = rng.normal(size=(5003, A)), rng.random((5003, A)) < 0.3
    time = np.arange(5003) / 25
    series = Series(
        AFFWILD2, time, y_hat, np.ones((5003, A)), np.zeros(5003, bool), {"active": [(active, ORANGE)]}
    ).binned()
    lowest, highest = series.extremes or (np.zeros(0), np.zeros(0))
    np.testing.assert_array_equal(lowest[7], y_hat[21:24].min(axis=0))
    np.testing.assert_array_equal(highest[-1], y_hat[5001:].max(axis=0))
    np.testing.assert_allclose(series.strips["active"][0][0][7], active[21:24].mean(axis=0))


def bars_of(drawing: Drawing, colour: str) -> list[tuple[float, float]]:
    """Return where the bars of a colour begin and end in the first panel, seconds."""
    from matplotlib.colors import to_rgb

    collections = drawing.figure.axes[0].collections
    bars = [bar for bar in collections if isinstance(bar, PolyCollection) and len(bar.get_facecolor())]
    own = [bar for bar in bars if np.allclose(bar.get_facecolor()[0][:3], to_rgb(colour))]
    corners = [path.vertices[:, 0] for bar in own for path in bar.get_paths()]
    return [(float(x.min()), float(x.max())) for x in corners]


def test_the_drawing_has_a_bar_for_each_run_and_faces_above(tmp_path: Path) -> None:
    active = np.zeros((10, A), bool)
    active[2:4, 5] = active[7, 5] = True
    zeros = np.zeros((10, A))
    series = Series(AFFWILD2, np.arange(10) / 2, zeros, zeros + 1, np.arange(10) == 9, {"active": [(active, ORANGE)]})
    faces = [np.full((8, 8, 3), 20 * k, np.uint8) for k in range(3)]
    drawing = draw_timeline(series, "a video", [5, 0], faces=faces)
    assert bars_of(drawing, ORANGE) == [(1.0, 2.0), (3.5, 4.0)]
    (image,) = drawing.figure.axes[-1].images
    assert np.asarray(image.get_array())[0, ::8, 0].tolist() == [0, 20, 40], "the faces from left to right"
    assert "AU10, AU1" in drawing.description
    drawing.save_png(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("faceless", "unlabelled", "text"),
    [(False, False, None), (True, False, "no face"), (False, True, "no label"), (True, True, "no face or no label")],
)
def test_the_legend_explains_what_is_grey(faceless: bool, unlabelled: bool, text: str | None) -> None:
    marks = np.zeros((2, 6, 1), bool)
    marks[0, 2], marks[1, 4] = True, unlabelled
    strips = {"truth": [(marks[0], ORANGE), (marks[1], UNKNOWN)]}
    y_hat, no_face = np.zeros((6, 1)), np.arange(6) == (0 if faceless else 9)
    figure = draw_timeline(Series(("AU9",), np.arange(6.0), y_hat, y_hat + 1, no_face, strips), "a").figure
    texts = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert texts[2:] == ([text] if text else [])
