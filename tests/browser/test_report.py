"""The report as people meet it: in a browser, in the dark, on paper, by keyboard, by ear."""

from __future__ import annotations

import json

import pytest

from smoothapi.study import StudyResult
from tests.unit.study.conftest import synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report drawn from JSON alone."""
    result = StudyResult.from_json(synthetic(20).to_json())
    return result.report(tmp_path_factory.mktemp("report")).parent


@pytest.fixture
def open_page(browser, folder):
    """Open the report; fail on any error, message or request to elsewhere."""
    contexts, complaints = [], []

    def open_page(path=folder / "report.html", **options):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:")) or complaints.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _key(row):
    names = ("provider", "denoiser", "sigma", "radius", "max_votes", "method")
    return "|".join(str(row[name]) for name in names)


def test_it_opens_and_says_what_the_json_says(open_page, folder, tmp_path):
    page = open_page()
    rows = json.loads((folder / "figures.json").read_text())
    shown = page.locator("#figures tbody tr")
    assert shown.count() == len(rows) == 36
    for row in rows:
        cells = page.locator(f'#figures tr[data-key="{_key(row)}"] td')
        assert cells.nth(4).inner_text().startswith(f"{100 * row['accuracy']:.1f}%")
        assert float(cells.nth(4).get_attribute("data-value")) == pytest.approx(row["accuracy"])
    headline = page.locator('[data-figure="headline"]').inner_text()
    assert headline.endswith("%")
    assert 0 < int(headline[:-1]) <= 100
    page.screenshot(path=tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 20_000
    assert page.locator("svg.plot").count() == 5
    assert page.locator(".gallery img").count() == 9
    natural = page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert natural


def test_tables_sort_by_click_and_by_key_and_say_so(open_page):
    page = open_page()
    header = page.locator("#figures thead th").nth(4)
    values = "[...document.querySelectorAll('#figures tbody td:nth-child(5)')].map(c => Number(c.dataset.value))"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    up = page.evaluate(values)
    assert up == sorted(up)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert page.evaluate(values) == sorted(up, reverse=True)
    method = page.locator("#figures thead th").nth(3)
    method.locator("button").click()
    assert header.get_attribute("aria-sort") is None
    words = page.locator("#figures tbody td.method").all_inner_texts()
    assert words == sorted(words)


def test_names_and_labels_from_outside_stay_text(open_page, folder):
    page = open_page()
    assert page.locator("script").count() == 1
    assert page.locator("h3", has_text="000 <b>&.jpg").count() == 1
    assert page.locator("h3 b, td i, th i").count() == 0
    text = page.locator("body").inner_text()
    assert "<script>alert('label')</script>" in text
    assert "broken <i>.jpg" in text
    assert "holiday <photos>" in text
    html = (folder / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def test_it_reads_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#figures tbody tr").count() == 36
    assert page.locator("thead button").count() == 0
    assert page.locator("summary").first.is_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_axe_finds_nothing_serious(open_page, axe, scheme, width):
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document)")
    serious = [
        (rule["id"], rule["impact"], [node["target"] for node in rule["nodes"]][:3])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert len(found["passes"]) > 20  # it did look


def test_axe_would_find_something(open_page, axe):
    page = open_page(bypass_csp=True)
    page.evaluate("document.querySelector('.gallery img').removeAttribute('alt')")
    page.evaluate("document.querySelector('.note').style.color = '#d0d0d0'")
    page.evaluate(axe)
    found = {rule["id"] for rule in page.evaluate("axe.run(document)")["violations"]}
    assert {"image-alt", "color-contrast"} <= found


def test_the_keyboard_reaches_all_there_is(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the figures"
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#main")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"SUMMARY", "BUTTON"} <= reached


def test_dark_pages_are_dark_plots_and_all_and_paper_is_white(open_page):
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    text = colour.format("svg.plot text", "fill")
    page = colour.format("body", "backgroundColor")
    light, dark = open_page(color_scheme="light"), open_page(color_scheme="dark")
    seen = {
        name: (_grey(p.evaluate(text)), _grey(p.evaluate(page)))
        for name, p in (("light", light), ("dark", dark))
    }
    assert seen["light"][0] < 150 < seen["light"][1]
    assert seen["dark"][1] < 60
    assert seen["dark"][0] > 150
    dark.emulate_media(media="print", color_scheme="dark")
    assert _grey(dark.evaluate(text)) < 150
    assert len(dark.pdf(format="A4")) > 20_000


def test_narrow_screens_do_not_scroll_sideways(open_page):
    page = open_page(viewport={"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_partial_and_compared_studies(open_page, tmp_path, axe):
    result = synthetic(
        8, providers=("aws", "google"), labelled=False, pictures=1,
        stopped="The budget ($2 a run) does not allow another query.",
    )  # fmt: skip
    page = open_page(result.report(tmp_path / "two"), bypass_csp=True)
    assert "partial study" in page.locator(".notice").inner_text()
    assert page.locator("#compare").count() == 1
    assert page.locator("text=Certified accuracy").count() == 0
    page.evaluate(axe)
    found = page.evaluate("axe.run(document)")["violations"]
    assert [r["id"] for r in found if r["impact"] in ("serious", "critical")] == []


def _grey(colour):
    numbers = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(float(number) for number in numbers) / 3
