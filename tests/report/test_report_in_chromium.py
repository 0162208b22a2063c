"""The page in a browser: nothing on its console, nothing asked of the network, readable on a phone and on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aupair.report.document import POLICY
from aupair.stage import ARTIFACTS
from services.chromium import Tab, chromium

WIDE, PHONE, PAPER = 1280, 390, 720


@pytest.fixture
def tab() -> Iterator[Tab]:
    with chromium() as found:
        yield found


def asked(tab: Tab) -> set[str]:
    """What was asked for that is not in the page itself."""
    return {address for address in tab.requests if not address.startswith("data:")}


def overflow(tab: Tab) -> list[str]:
    """What reaches beyond the right edge, but for what scrolls by itself."""
    return list(
        tab.evaluate("""[...document.querySelectorAll('body *')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .wide, nav'))
        .map(e => e.tagName + '.' + e.getAttribute('class'))""")
    )


def test_the_page_loads_without_a_complaint_or_a_request(tab: Tab, finished: Path) -> None:
    page = finished / ARTIFACTS["report"]
    for width in (WIDE, PHONE):
        tab.open(page, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert overflow(tab) == []
    assert tab.complaints == []
    assert asked(tab) == {page.resolve().as_uri()}
    assert tab.evaluate("document.images.length") > 40
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.title")
    assert tab.picture().startswith(b"\x89PNG")


def test_text_in_a_figure_is_readable_on_a_phone(tab: Tab, finished: Path) -> None:
    """A figure fits the width of a phone, and its smallest text is at least 7 pixels high there."""
    tab.open(finished / ARTIFACTS["report"], PHONE)
    smallest = tab.evaluate("""Math.min(...[...document.querySelectorAll('#scores svg text, #choice svg text')]
        .map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))""")
    assert smallest >= 7
    assert tab.evaluate("document.querySelector('#choice svg').getBoundingClientRect().width") < PHONE


def test_paper_shows_what_is_folded_and_cuts_nothing(tab: Tab, finished: Path) -> None:
    page = finished / ARTIFACTS["report"]
    visible = "[...document.querySelectorAll('details table')].filter(e => e.checkVisibility()).length"
    tab.open(page, PAPER)
    assert tab.evaluate(visible) == 0
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate(visible) == tab.evaluate("document.querySelectorAll('details table').length") > 0
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER
    printed = tab.pdf()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") > 4


def test_a_page_that_complains_or_asks_is_caught(tab: Tab, tmp_path: Path) -> None:
    """The checks above can fail; and what the policy forbids is not loaded, but complained of."""
    picture = '<img src="http://127.0.0.1:9/face.png"><script>console.error("heard")</script>'
    free, held = tmp_path / "free.html", tmp_path / "held.html"
    free.write_text(f"<!doctype html><title>t</title>{picture}")
    held.write_text(f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{POLICY}">{picture}')
    tab.open(free)
    assert "heard" in tab.complaints
    assert "http://127.0.0.1:9/face.png" in asked(tab)
    before = len(tab.complaints)
    tab.open(held)
    told = tab.complaints[before:]
    assert len([text for text in told if "Content Security Policy" in text]) >= 2, told
    assert "heard" not in told
