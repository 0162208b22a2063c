"""The page: what it shows is what was found, each face is its frame's, and it needs nothing but itself."""

import base64
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from aupair import stages, store
from aupair.aus import AUS
from aupair.data.frames import Frames
from aupair.errors import ArtifactError
from aupair.evaluation.evaluate import Evaluation
from aupair.evaluation.selection import Trial
from aupair.params import Params
from aupair.report import formatting as words
from aupair.report.page import about, faces, markup, scores
from aupair.report.page.charts import Axis, Chart, axis
from aupair.report.page.timelines import timelines

VOID = {"meta", "link", "br", "img"}
SIZE, LENGTH = 32, 6


class Outline(HTMLParser):
    """Checks that what is opened is closed, and keeps the attributes of every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


def world(folder: Path) -> tuple[Evaluation, Frames]:
    """Four videos of validation; a face's colour says which row it is, and nothing is active, decided or unsure."""
    rows = np.arange(4 * LENGTH)
    for video in range(4):
        own = rows[video * LENGTH : (video + 1) * LENGTH]
        images = [np.full((SIZE, SIZE, 3), 10 * row, np.uint8) for row in own]
        blank = {name: np.full((LENGTH, width), np.nan, np.float32) for name, width in (("l", 136), ("t", 6))}
        columns = {
            "frame": np.arange(LENGTH, dtype=np.int32), "time": np.arange(LENGTH) / 2.0, "status": ["ok"] * LENGTH,
            "jpeg": [store.encode_jpeg(image) for image in images], "landmarks": list(blank["l"]),
            "transform": list(blank["t"]), "detector_score": np.ones(LENGTH, np.float32), "tracked": [False] * LENGTH,
            "pass_disagreement": np.zeros(LENGTH, np.float32), "procrustes_residual": np.zeros(LENGTH, np.float32),
        }  # fmt: skip
        store.write_faces(folder / f"v{video}.arrow", [columns], {})
    frames = Frames(
        videos=("v0", "v1", "v2", "v3"), subjects=("a", "b", "c", "d"), video=(rows // LENGTH).astype(np.int32),
        subject=(rows // LENGTH).astype(np.int32), split=np.full(len(rows), 2, np.int8),
        frame=(rows % LENGTH).astype(np.int32), time=(rows % LENGTH) / 2.0, ok=np.ones(len(rows), bool),
        labels=np.zeros((len(rows), len(AUS)), np.int8),
    )  # fmt: skip
    shape = frames.labels.shape
    trial = Trial(0, np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape), np.zeros(shape))
    return Evaluation([], {}, {}, trial, np.zeros(shape, bool), np.full(shape, 0.9)), frames


def rows_shown(page: str) -> list[int]:
    """Which rows the pictures of a page show, by their colour."""
    shown = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    return [round(store.decode_jpeg(base64.b64decode(data)).mean() / 10) for data in shown]


def test_the_faces_shown_are_the_most_unsure_and_the_most_wrong(tmp_path: Path) -> None:
    evaluation, frames = world(tmp_path)
    evaluation.trial.sigma[13, 4] = 5.0  # the third video's second frame
    evaluation.decisions[20, 7] = True
    evaluation.confidence[20, 7] = 0.97
    evaluation.decisions[21, 7] = True
    page = faces.montages(evaluation, frames, faces.thumbnails(tmp_path, frames))
    unsure, _, _, wrong = re.split("<h3>", page)[1:]
    assert rows_shown(unsure)[4] == 13
    figure = re.findall(r"<figure>.*?</figure>", unsure)[4]
    for said in (
        "AU7",
        "decided not active",
        "truth: not active",
        "confidence 0.90",
        "sigma 5.00",
        "v2, frame 1, 0.5 s",
    ):
        assert said in figure
    assert rows_shown(wrong) == [20], "an AU without a wrong decision is left out"
    assert "decided active" in wrong
    assert 'class="error"' in wrong
    assert "confidence 0.97" in wrong
    outline(page)


def test_each_face_is_of_another_video_as_long_as_there_is_one() -> None:
    score = np.zeros((8, 3))
    score[0] = 9, 8, 7
    score[1] = 8, 9, 8
    score[4, 1] = 1
    score[6] = np.nan
    video = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    assert faces.pick(score, np.ones((8, 3), bool), video) == [(0, 0), (4, 1), (7, 2)]
    allowed = np.ones((8, 3), bool)
    allowed[4:] = False
    allowed[:, 2] = False
    assert faces.pick(score, allowed, video) == [(0, 0), (1, 1)], "the same video again, rather than nothing"


def test_a_missing_face_is_one_line(tmp_path: Path) -> None:
    evaluation, frames = world(tmp_path)
    (tmp_path / "v2.arrow").unlink()
    with pytest.raises(ArtifactError, match=r"missing file: in .*v2\.arrow"):
        faces.montages(evaluation, frames, faces.thumbnails(tmp_path, frames))


def test_a_timeline_shows_truth_decision_and_where_they_differ(tmp_path: Path) -> None:
    evaluation, frames = world(tmp_path)
    frames.labels[6:9, 2] = 1
    evaluation.decisions[7:10, 2] = True
    evaluation.confidence[11, 2] = 0.1
    page = timelines(evaluation, frames, faces.thumbnails(tmp_path, frames))
    outline(page)
    first = page.split("<h3>")[1]
    assert first.startswith("v1<"), "the video in which something happens"
    assert rows_shown(first) == sorted(rows_shown(first))
    assert set(rows_shown(first)) == set(range(6, 12))
    panel = next(part for part in first.split("<h4>") if part.startswith("AU4 "))
    strips = re.findall(r'<div class="strip"><span>(\w+)</span>.*?</svg>', panel)
    spans = [
        [(round(float(a) / 1000 * LENGTH), round(float(b) / 1000 * LENGTH)) for a, b in re.findall(r'x="([\d.]+)".*?width="([\d.]+)"', body)]
        for body in re.findall(r'<div class="strip">(.*?)</svg>', panel)
    ]  # fmt: skip
    assert dict(zip(strips, spans))["truth"] == [(0, 3)]
    assert dict(zip(strips, spans))["decided"] == [(1, 3)]
    assert dict(zip(strips, spans))["wrong"] == [(0, 1), (3, 1)]
    assert (5, 1) in dict(zip(strips, spans))["unsure"]


def test_a_chart_puts_more_above_and_right_and_leaves_gaps() -> None:
    x, y = np.arange(5.0), np.array([0.0, 1.0, np.nan, 1.0, 2.0])
    drawn = Chart(Axis(0, 4), Axis(0, 2)).line(x, y, "blue", "seen").html("a chart")
    lines = [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'points="(.*?)"', drawn)
    ]
    assert lines == [[(0, 1000), (250, 500)], [(750, 500), (1000, 0)]]
    assert 'aria-label="a chart"' in drawn
    assert "</i>seen</li>" in drawn
    bar = Chart(Axis(0, 1), Axis(0, 1)).bar((0.25, 0.75), (0.5, 1), "blue").html("a bar")
    assert 'x="250" y="0" width="500" height="500"' in bar


def test_axes_hold_what_they_are_made_for() -> None:
    for values in ([0.3, 17.2], [-2.0, 5.0], [4.0, 4.0], [np.nan, 1.0], []):
        made = axis(values)
        finite = np.array([value for value in values if np.isfinite(value)])
        assert made.low < made.high
        assert np.all((made.place(finite) >= 0) & (made.place(finite) <= 1))
        assert len(made.labels()) >= 2


def test_words_are_escaped_and_unknown_numbers_are_dashes() -> None:
    assert markup.text("<b> `a<b` **c**") == "&lt;b&gt; <code>a&lt;b</code> <strong>c</strong>"
    assert words.number(None) == words.number(float("nan")) == words.percent(None) == "–"
    assert "[0.1,\u00a00.2]" in markup.table([["", "x"], ["a", "0 [0.1, 0.2]"]], "t")


def test_curves_are_sorted_by_quantity_and_network() -> None:
    rows = [{"network": name, "step": step, "loss": step / 2} for name in ("f", "g") for step in (1, 2)]
    step, value = about.curves(rows)["loss"]["g"]
    assert (step.tolist(), value.tolist()) == ([1, 2], [0.5, 1])
    assert list(about.curves([{"epoch": 3, "select_loss": 0.5}])["select_loss"]) == [""]


def place(finished: Path, name: str) -> Path:
    return finished / stages.ARTIFACTS[name].format(trial=0)


def test_the_page_says_what_the_files_say(finished: Path) -> None:
    page = place(finished, "report").read_text()
    metrics, selection = (store.read_json(place(finished, name)) for name in ("metrics", "selection"))
    seen = outline(page)
    assert [part["id"] for part in seen.of("section")] == [
        "data", "headline", "scores", "choice", "timelines", "faces", "calibration", "abstaining", "evidence",
        "training", "cost", "settings",
    ]  # fmt: skip
    assert stages.SYNTHETIC in html.unescape(page.split("<table>")[0]), "said first"
    row = scores.of_row(metrics, "P2")
    low, high = row["intervals"]["f1"]
    assert f"<b>{row['f1']:.3f}</b><span>[{low:.3f}, {high:.3f}]</span>" in page
    chart = next(svg["aria-label"] for svg in seen.of("svg") if (svg["aria-label"] or "").startswith("Difference"))
    for au in AUS:
        assert f"{au} {selection[au]['difference']:.3f}" in (chart or "")
    for name in ("f", "h", "mapping"):
        last = store.read_jsonl(finished / f"work/trials/{metrics['chosen_trial']}/{name}/curves.jsonl")[-1]
        assert f"{last['train_loss']:.4g}" in page
    assert len(re.findall("<figure>", page)) >= 3 * len(AUS)


def test_the_page_is_whole_small_and_asks_for_nothing(finished: Path) -> None:
    path = place(finished, "report")
    page, seen = path.read_text(), outline(path.read_text())
    assert path.stat().st_size < 3e6
    assert not seen.of("script")
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in seen.of("img"))
    assert all(image["alt"] for image in seen.of("img"))
    assert all(drawing["aria-label"] for drawing in seen.of("svg"))
    assert [link["href"] for link in seen.of("link")] == ["data:,"]
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.replace("http-equiv", ""))
    ids = {part["id"] for part in seen.of("section")}
    assert {(link["href"] or "")[1:] for link in seen.of("a")} == ids
    assert seen.of("html") == [{"lang": "en"}]


def test_equal_runs_give_equal_bytes(home: Path, tiny: Params) -> None:
    before = place(home, "report").read_bytes()
    place(home, "report").unlink()
    stages.run("evaluate", tiny, root=home)
    assert place(home, "report").read_bytes() == before


def test_an_interval_is_drawn_where_there_is_one(finished: Path) -> None:
    metrics = store.read_json(place(finished, "metrics"))
    for row in metrics["rows"]:
        for figures in row["per_au"].values():
            figures.pop("f1_interval", None)
    bare = scores.scores(metrics).count('class="line dark"')
    for row in metrics["rows"]:
        for figures in row["per_au"].values():
            figures["f1_interval"] = [0.25, 0.75]
    drawn = scores.scores(metrics)
    assert drawn.count('class="line dark"') == bare + 2 * len(AUS)
    assert re.search(r'class="line dark" points="250,[\d.]+ 750,', drawn)


def test_real_faces_are_somebodys(tmp_path: Path) -> None:
    _, frames = world(tmp_path)
    assert about.SHARE in html.unescape(about.data(frames, "", [["AU"], ["AU1"]]))
    assert about.SHARE not in html.unescape(about.data(frames, stages.SYNTHETIC, [["AU"], ["AU1"]]))
    none = replace(frames, labels=np.full_like(frames.labels, -1))
    assert "–" in about.data(none, "", [["AU"], ["AU1"]]), "no annotation, no share of positives"
