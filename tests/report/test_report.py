"""The page and the table show what evaluate computed, each face is its frame's, and the page needs nothing else."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from aupair import __version__, stages, store
from aupair.aus import AFFWILD2
from aupair.data.frames import load_frames
from aupair.errors import ArtifactError
from aupair.params import Params
from aupair.ranking.samples import load_samples
from aupair.report import counts, document, faces, formatting
from aupair.report.tables import Table, headline, rows_of
from conftest import artifact
from report.worlds import evaluation_of, frames_of

VOID = {"meta", "link", "br", "img"}
PLOTS = ["f1", "reliability", "risk_coverage", "timelines"]
SECTIONS = [
    "data", "headline", "scores", "choice", "timelines", "faces", "calibration", "abstaining", "evidence", "training",
    "cost", "settings", "glossary",
]  # fmt: skip


class Outline(HTMLParser):
    """Checks that what is opened is closed, and keeps the attributes of every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(row: int) -> np.ndarray:
    """Return a picture whose colour says which row it is."""
    return np.full((32, 32, 3), 10 * row, np.uint8)


def test_the_faces_shown_are_the_most_unsure_and_the_most_wrong() -> None:
    frames = frames_of([0, 0, 0, 0], [0, 1, 2, 3], length=6)
    evaluation = evaluation_of(frames)
    evaluation.outputs.sigma[13, 4] = 5.0  # the third video's second frame
    evaluation.decisions[20:22, 7] = True
    evaluation.confidence[20, 7] = 0.97
    shown = faces.montages(evaluation, frames, picture)
    face = shown["highest_sigma"][4]
    assert round(store.decode_jpeg(face.jpeg).mean() / 10) == 13, "the row, by its colour"
    assert (face.au, face.frame) == ("AU7 lid tightener", "v2, frame 1, 0.5 s")
    assert (face.decision, face.right) == ("decided not active", True)
    assert face.lines[:2] == ("truth: not active", "confidence 0.90")
    assert face.lines[2].startswith("sigma 5.00, above ")
    (face,) = shown["confident_errors"]  # an AU without a wrong decision is left out
    assert round(store.decode_jpeg(face.jpeg).mean() / 10) == 20
    assert (face.decision, face.right, face.lines[1]) == ("decided active", False, "confidence 0.97")


def test_only_labelled_cells_are_shown() -> None:
    frames = frames_of([0, 0], [0, 1], length=6)
    evaluation = evaluation_of(frames)
    evaluation.outputs.sigma[3, 4] = 5.0
    evaluation.decisions[3, 4] = True
    frames.labels[3, 4] = frames.labels[:, 5] = -1
    shown = faces.montages(evaluation, frames, picture)
    assert shown["confident_errors"] == []
    assert len(shown["highest_sigma"]) == len(AFFWILD2) - 1
    assert all(face.lines[-1].startswith("sigma 1.00") for face in shown["highest_sigma"])


def test_a_thumbnail_is_the_face_of_its_frame(finished: Path) -> None:
    frames = load_frames(artifact(finished, "labels"), artifact(finished, "faces"))
    thumbnail = faces.thumbnails(artifact(finished, "faces"), frames)
    rows = frames.slices()[3]
    row = rows.start + int(np.flatnonzero(frames.ok[rows])[-1])
    stored = store.read_faces(artifact(finished, "faces") / f"{frames.videos[3]}.arrow")["jpeg"][
        row - rows.start
    ].as_py()
    np.testing.assert_array_equal(thumbnail(row), store.decode_jpeg(stored))
    with pytest.raises(ArtifactError, match=r"missing file: in .*\.arrow"):
        faces.thumbnails(finished / "nowhere", frames)(row)


def test_each_face_is_of_another_video_as_long_as_there_is_one() -> None:
    score = np.zeros((8, 3))
    score[0] = 9, 8, 7
    score[1] = 8, 9, 8
    score[4, 1] = 1
    score[6] = np.nan
    video = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    assert faces._pick(score, np.ones((8, 3), bool), video) == [(0, 0), (4, 1), (7, 2)]
    allowed = np.ones((8, 3), bool)
    allowed[4:] = False
    allowed[:, 2] = False
    assert faces._pick(score, allowed, video) == [(0, 0), (1, 1)], "the same video again, rather than nothing"


def test_a_table_is_the_same_as_markdown_and_as_html_and_words_are_escaped() -> None:
    table = Table("a <caption>", ["", "x"], [["<b> `a<b` **c**", "0 [0.1, 0.2]"], ["d", "–"]], [1])
    page, text = (
        document._environment(page).get_template(f"report/macros.{kind}.j2").module.table(table)
        for page, kind in ((True, "html"), (False, "md"))
    )
    assert text.startswith("**a <caption>**\n\n|  | x |\n| --- | ---: |\n| <b> `a<b` **c** | 0 [0.1, 0.2] |\n| d | – |")
    assert '<th scope="row">&lt;b&gt; <code>a&lt;b</code> <strong>c</strong></th><td>0 [0.1,\u00a00.2]</td>' in page
    assert '<tr class="strong"><th scope="row">d</th>' in page
    assert "<h1>h &amp; h</h1>" in document.html_page("report/curves.j2", "t", "h & h", drawings=[])
    assert formatting.number(None) == formatting.number(float("nan")) == formatting.percent(None) == "undefined"


def test_the_page_says_what_the_files_say_and_needs_nothing_else(finished: Path) -> None:
    page = artifact(finished, "report").read_text()
    metrics, selection = (store.read_json(artifact(finished, name)) for name in ("metrics", "selection"))
    outline = Outline(page)
    assert [part["id"] for part in outline.attributes("section")] == SECTIONS
    assert [link["href"] for link in outline.attributes("a")] == [f"#{name}" for name in SECTIONS]
    assert stages.SYNTHETIC in html.unescape(page.split("<table>")[0]), "said first"
    row = rows_of(metrics, "validation")["P2"]
    low, high = row["intervals"]["f1"]
    assert f"<b>{row['f1']:.3f}</b><span>[{low:.3f},\u00a0{high:.3f}]</span>" in page
    charts = [svg["aria-label"] or "" for svg in outline.attributes("svg")]
    differences = next(label for label in charts if label.startswith("Difference"))
    for au in AFFWILD2:
        assert f"{selection[au]['difference']:.3f}" in differences
    for name in ("f/0", "h", "mapping"):
        last = store.read_jsonl(finished / "work" / name / "curves.jsonl")[-1]
        for loss in (value for key, value in last.items() if key.endswith("loss")):
            assert any(f"{loss:.4g}" in label for label in charts), name
    assert len(outline.attributes("img")) >= 3 * len(AFFWILD2)
    words = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    assert all(meaning.endswith(".") for _, meaning in words)
    for word in ("f", "h", "sigma", "select", "P1", "P2", "2021 score", "GMAC"):
        assert any(word in term.split(", ") for term, _ in words), word
    # the page is small and asks for nothing
    assert len(page) < 2e6
    assert not outline.attributes("script")
    for image in outline.attributes("img"):
        assert (image["src"] or "").startswith("data:image/jpeg;base64,")
        assert image["alt"]
    assert all(charts)
    assert "data:image/png" not in page
    assert [link["href"] for link in outline.attributes("link")] == ["data:,"]
    text = re.sub(r'(src|xlink:href)="data:[^"]*"', "", page.replace("http-equiv", ""))
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", text)
    assert outline.attributes("html") == [{"lang": "en"}]


def test_the_page_names_its_data_commit_and_versions(home: Path, tiny: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    path, md5 = artifact(home, "report"), store.read_json(artifact(home, "info"))["md5"].removesuffix(".dir")
    assert f"<span>data <b>{md5}</b></span>" in path.read_text()
    assert "<span>commit <b>none: outside of a git repository</b></span>" in path.read_text()
    monkeypatch.setenv("AUPAIR_GIT_COMMIT", "0123456789abcdef-dirty")
    monkeypatch.setenv("AUPAIR_GIT_DATE", "2026-03-04")
    stages.run_stage("evaluate", tiny, root=home)
    commit = "0123456789ab of 2026-03-04, with uncommitted changes"
    versions = {"aupair": __version__, "MLflow": version("mlflow")}
    for name, value in {"commit": commit, **versions}.items():
        assert f"<span>{name} <b>{value}</b></span>" in path.read_text()
    assert f'<th scope="row">commit</th><td>{commit}</td>' in path.read_text()


def test_equal_runs_give_equal_bytes(home: Path, tiny: Params) -> None:
    before = {name: artifact(home, name).read_bytes() for name in ("report", "table")}
    artifact(home, "report").unlink()
    stages.run_stage("evaluate", tiny, root=home)
    assert {name: artifact(home, name).read_bytes() for name in before} == before


def test_the_table_and_the_plots_show_what_the_files_say(finished: Path) -> None:
    assert sorted(path.stem for path in artifact(finished, "plots").glob("*.png")) == PLOTS
    for name in PLOTS:
        assert (artifact(finished, "plots") / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    metrics = store.read_json(artifact(finished, "metrics"))
    lines = artifact(finished, "table").read_text().splitlines()
    assert lines[:3] == ["# Results", "", stages.SYNTHETIC]
    p2 = rows_of(metrics, "validation")["P2"]
    gain = metrics["decisions"]["selective"]["gain_at_80"]["f1"]["difference"]
    for start, number in (("| P2: uncertainty", p2["score"]), ("| confidence minus random, mean", gain)):
        assert f"{number:.3f}" in next(line for line in lines if line.startswith(start))
    assert not any("(chosen on validation)" in line for line in lines)
    frames = load_frames(artifact(finished, "labels"), artifact(finished, "faces"))
    pairs = load_samples(artifact(finished, "pairs"), frames).table()
    assert lines[-1] == f"| {' | '.join(pairs[-1])} |", "the counts of pairs are the last table"
    for name in (*(f"{au} " for au in AFFWILD2), "P2 - best-constant", "confidence-ungrouped", "certainty", "80.0 %"):
        assert any(line.startswith(f"| {name}") for line in lines)
    assert headline(metrics).row_count == len([row for row in metrics["rows"] if row["split"] == "validation"]) == 9
    unlabelled = replace(frames, labels=np.full_like(frames.labels, -1))
    assert counts.positives_table(unlabelled).rows[0] == ["AU1", *["undefined"] * 3], (
        "no annotation, no share of positives"
    )
