"""The page in a browser: no messages, no requests, readable on a phone and on paper."""

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupair.report.document import POLICY
from aupair.stage import ARTIFACTS
from services.chromium import Tab, chromium

WIDE, PHONE, PAPER = 1280, 390, 720
OVERFLOW = """[...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .wide, nav'))
    .map(e => e.tagName + '.' + e.getAttribute('class'))"""
"""The elements that reach beyond the right edge, but for those that scroll by themselves."""
SMALLEST = """Math.min(...[...document.querySelectorAll('#scores svg text, #choice svg text')]
    .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""
"""The height of the smallest text of two figures, in pixels of the screen."""
SCROLLS = """[...document.querySelectorAll('.scroll, .wide')]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
    .map(e => (e.scrollLeft = END ? e.scrollWidth : 0, e.getBoundingClientRect()))
    .map(r => [r.right, r.top + scrollY, r.height])"""
"""Scroll what is wider than its place to its beginning or END; return its right edge, top and height in the page."""
VISIBLE = "[...document.querySelectorAll('details table')].filter(e => e.checkVisibility()).length"


@pytest.fixture
def tab() -> Iterator[Tab]:
    with chromium() as opened:
        yield opened


def requests(tab: Tab) -> set[str]:
    """Return the addresses that the browser asked for and that are not in the page itself."""
    return {address for address in tab.requests if not address.startswith("data:")}


def test_the_page_is_read_on_a_desk_on_a_phone_and_on_paper(tab: Tab, finished: Path) -> None:
    page = finished / ARTIFACTS["report"]
    for width in (WIDE, PHONE):
        tab.open(page, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(OVERFLOW) == []
        assert tab.evaluate(SMALLEST) >= 7
    assert tab.evaluate("document.images.length") > 40
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    tab.resize(PAPER)
    assert tab.evaluate(VISIBLE) == 0
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate(VISIBLE) == tab.evaluate("document.querySelectorAll('details table').length") > 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert tab.pdf().count(b"/Type /Page\n") > 4
    assert tab.complaints == []
    assert requests(tab) == {page.resolve().as_uri()}


def share_of_paper(tab: Tab, end: bool) -> list[float]:
    """Return the share of white at the right edge of everything that scrolls sideways, at its beginning or its end."""
    places = tab.evaluate(SCROLLS.replace("END", str(end).lower()))
    shares = []
    for right, top, height in places:
        strip = {"x": right - 3, "y": top, "width": 2, "height": height, "scale": 1}
        data = tab.call("Page.captureScreenshot", clip=strip, captureBeyondViewport=True)["data"]
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        shares.append(float((image == 255).all(axis=2).mean()))
    return shares


def test_what_is_cut_on_a_phone_has_a_shaded_edge_until_its_end(tab: Tab, finished: Path) -> None:
    page = finished / ARTIFACTS["report"]
    tab.open(page, PHONE)
    cut = share_of_paper(tab, end=False)
    assert len(cut) > 5
    assert max(cut) < 0.05
    assert min(share_of_paper(tab, end=True)) > 0.5
    tab.open(page, WIDE)
    assert tab.evaluate("document.querySelector('#scores .scroll').scrollWidth") <= WIDE
    assert share_of_paper(tab, end=False) == [], "on a desk no table has to be scrolled, the costs of a row included"


def test_the_policy_holds_back_what_a_page_without_it_loads(tab: Tab, tmp_path: Path) -> None:
    parts = '<img src="http://127.0.0.1:9/face.png"><script>console.error("heard")</script>'
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>t</title>{parts}")
    tab.open(path)
    assert "heard" in tab.complaints
    assert "http://127.0.0.1:9/face.png" in requests(tab)
    tab.complaints.clear()
    path.write_text(f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{POLICY}">{parts}')
    tab.open(path)
    assert len([text for text in tab.complaints if "Content Security Policy" in text]) >= 2, tab.complaints
    assert "heard" not in tab.complaints
