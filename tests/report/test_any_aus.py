"""The reports on any number of AUs, with any names, labelled as far as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupair import store
from aupair.aus import SPLITS, label_au
from aupair.evaluation.evaluate import evaluate_flow
from aupair.params import Params
from aupair.report import counts, reports, tables
from evaluation.worlds import QUICK, world
from report.test_report import Outline
from report.test_report_in_chromium import OVERFLOW, PHONE, SMALLEST, WIDE
from services.chromium import chromium

NAMES = (
    "Head-shake-to-the-left", "AU12L", "smile", "AU43", "A-name-of-exactly-forty-letters-and-more", "AU9", "AU14",
    *(f"behaviour-{k}" for k in range(13)),
)  # fmt: skip


def write(folder: Path, aus: int, missing: str, monkeypatch: pytest.MonkeyPatch) -> reports.Places:
    """Write the reports on a world; the first AU has no label on validation where labels are missing."""
    frames, outputs, pairs, _ = world(aus=aus, missing=missing)
    labels = frames.labels.copy()
    if missing != "none" and aus > 1:
        labels[frames.of_split("validation"), 0] = -1
    frames = replace(frames, aus=NAMES[:aus], labels=labels)
    smoothed = {"both": outputs.y_hat, "constant": outputs.y_hat}
    evaluation = evaluate_flow(frames, replace(outputs, smoothed=smoothed), pairs, None, QUICK)
    trained = {name: folder / name for name in ("f", "h", "mapping")}
    for own in trained.values():
        own.mkdir()
        store.write_json(own / "about.json", {"size": 64})
        (own / "curves.jsonl").write_text('{"network": "f", "step": 1, "loss": 0.5}\n')
    nll = {name: [0.2] * aus for name in ("constant", "unguarded", "guarded")}
    guard = {"strength": [0.0] + [0.75] * (aus - 1), "nll": nll}
    store.write_json(trained["h"] / "about.json", {"size": 64, "guard_of_aus": guard})
    numbers = {"both": {"reach": 0.4, "power": 1.5, "r_squared": 0.91}}
    store.write_json(folder / "smoother.json", {"routes": numbers})
    cost = {"parameters": 1, "gmac_per_frame": 0.1, "passes": 1}
    monkeypatch.setattr(reports, "cost_of_files", lambda *_: {**cost, "passes": 2, "parts": {"f": cost, "h": cost}})
    monkeypatch.setattr(reports, "thumbnails", lambda *_: lambda _: np.full((32, 32, 3), 90, np.uint8))
    places = reports.Places(*(folder / name for name in reports.Places._fields))._replace(report=folder / "page.html")
    drawn = [["AU", *SPLITS], *([au, "1 of 2", "1 of 2", "1 of 2"] for au in frames.aus)]
    reports.write_reports(evaluation, frames, places, drawn, reports.Sources(folder, trained, Params(), "", folder))
    return places


@pytest.mark.parametrize(("aus", "missing"), [(1, "random"), (3, "none"), (3, "random"), (20, "videos")])
def test_the_page_and_the_table_name_every_au_and_say_what_is_labelled(
    aus: int, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = write(tmp_path, aus, missing, monkeypatch)
    metrics, page, text = store.read_json(places.metrics), places.report.read_text(), places.table.read_text()
    outline = Outline(page)
    charts = [svg["aria-label"] or "" for svg in outline.attributes("svg")]
    for au in NAMES[:aus]:
        assert f"| {label_au(au)} |" in text
        assert any(label_au(au) in label for label in charts)
    assert "nan" not in text
    assert f"| {label_au(NAMES[0])} | 0: the constant | 0.200 |" in text
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.endswith("0 |")}
    assert rows["| P1: uncertainty for all AUs"].endswith("| 2 | 0.200 | 0.00 |"), "f and h"
    assert rows["| smoothed, the same noise everywhere (control)"].endswith("| 1 | 0.100 | 0.00 |"), "f alone"
    row = next(line for line in text.splitlines() if line.startswith("| smoothed by sigma and quality |"))
    assert row.endswith("| 0.910 | 0.400 | 1.500 |"), "what the smoother chose"
    assert "nan" not in "".join(charts)
    assert len([path for path in places.plots.iterdir() if path.read_bytes().startswith(b"\x89PNG")]) == 4

    partial = missing != "none" and aus > 1
    for content in (page, text):
        assert ("Labelled frames of each AU" in content) == partial
        assert ("All other figures use the labelled frames of each AU" in content) == partial
    assert ("with all labels" in text) == partial
    p2 = next(line for line in text.splitlines() if line.startswith("| P2: uncertainty"))
    assert ("undefined" in p2) == (metrics["frames"]["validation"]["complete"] == 0) == partial
    assert (f"| {label_au(NAMES[0])} | undefined |" in text) == partial
    headline = tables.headline(metrics)
    assert headline.caption == (tables.complete_frames(metrics) if partial else None)


def test_the_note_counts_complete_frames_of_both_splits() -> None:
    def note(select: int, validation: int) -> str:
        complete = {"select": select, "validation": validation}
        frames = {split: {"annotated": 1500, "complete": own} for split, own in complete.items()}
        return tables.complete_frames({"frames": frames})

    assert note(1500, 1500) == ""
    assert note(1200, 0).endswith(
        "are labelled: 0 of the 1,500 annotated frames of validation, 1,200 of the 1,500 annotated frames of select."
    )
    assert note(0, 0).startswith("No annotated frame has the labels of all AUs")
    assert tables.complete_frames({}) == "", "a metrics.json of before"


def test_labelled_frames_and_positives_are_counted_for_each_au_and_split() -> None:
    frames, *_ = world(aus=3, missing="random")
    table = counts.positives_table(frames)
    assert table.head == ["AU", "fit", "active", "select", "active", "validation", "active"]
    for k, (name, *cells) in enumerate(table.rows):
        assert name == frames.aus[k]
        for split, number, share in zip(SPLITS, cells[::2], cells[1::2]):
            own = [int(label) for label in frames.labels[frames.of_split(split), k] if label >= 0]
            assert (number, share) == (f"{len(own):,}", f"{100 * sum(own) / len(own):.1f} %")
    assert [row[-1] for row in counts.frame_counts(frames).rows] == [
        str(sum(all(label >= 0 for label in row) for row in frames.labels[frames.of_split(split)])) for split in SPLITS
    ]


def test_many_aus_with_long_names_fit_a_desk_and_a_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chromium() as tab:
        page = write(tmp_path, 20, "videos", monkeypatch).report
        for width in (WIDE, PHONE):
            tab.open(page, width)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(OVERFLOW) == []
            assert tab.evaluate(SMALLEST) >= 7
        assert tab.complaints == []
