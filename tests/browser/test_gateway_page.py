"""The gateway's page in a browser: light, dark, narrow, by keyboard and by ear."""

from __future__ import annotations

from decimal import Decimal

import pytest

from smoothapi.gateway.page import page
from smoothapi.store import Account, Record

HOSTILE = "<img src=x onerror=alert(1)>"


def made_of(times):
    """Return the page, with three kinds of pictures so many times each, and its policy."""
    latest = [
        Record(
            f"{i:032x}", "radiology", "aws", "DetectLabels", outcome, why,
            {"labels": [{"name": HOSTILE, "certified": True}] * 6}, 1.8e9 + i,
        )
        for i, (outcome, why) in enumerate(
            [("certified", ""), ("abstained", "No label could be certified."), ("budget", HOSTILE)] * times
        )
    ]  # fmt: skip
    accounts = [
        Account("gateway-aws", "2026-11-28", 1200, Decimal("1.2"), 0, None, Decimal(100)),
        Account("gateway-caller-radiology", "2026-11", 1200, Decimal("1.2"), 3, None, None),
    ]
    hour = {("aws", "radiology", "certified"): 40, ("aws", "radiology", "provider"): 2}
    load = {"working": 3, "waiting": 1, "held": 5 * 2**20}
    made, policy = page(
        providers=["aws", "google"],
        hour=hour,
        latest=latest,
        accounts=accounts,
        load=load,
        now=1.8e9,
    )
    return made.decode(), policy


@pytest.fixture(scope="module")
def html():
    return made_of(20)


@pytest.fixture
def open_page(browser, html):
    contexts, complaints = [], []

    def open_page(**options):
        context = browser.new_context(**({"viewport": {"width": 1000, "height": 800}} | options))
        contexts.append(context)
        made = context.new_page()
        made.on("console", lambda message: complaints.append(message.text))
        made.on("pageerror", lambda error: complaints.append(str(error)))
        made.on("dialog", lambda dialog: complaints.append(dialog.message))
        body, policy = html

        def answer(route):
            if route.request.url != "http://gateway.test/smoothapi/":
                complaints.append(route.request.url)
            route.fulfill(
                body=body, content_type="text/html", headers={"content-security-policy": policy}
            )

        made.route("**/*", answer)
        made.goto("http://gateway.test/smoothapi/")
        return made

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme, width, browser, axe):
    # Without the page's policy, which lets no script in: not even axe's.
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    made = context.new_page()
    made.set_content(made_of(2)[0])  # more rows of the same take it minutes, and tell nothing
    made.evaluate(axe)
    found = made.evaluate("() => axe.run()")
    context.close()
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert len(found["passes"]) > 15  # it did look


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_styled_and_says_what_it_was_given(scheme, open_page):
    made = open_page(color_scheme=scheme)
    assert made.locator("h1").inner_text() == "Gateway"
    surface = made.locator("section").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert surface == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(23, 28, 34)")
    assert made.locator("main tbody tr").count() > 50
    assert made.locator("img").count() == 0


def test_a_narrow_window_scrolls_tables_and_not_the_page(open_page):
    made = open_page(viewport={"width": 400, "height": 800})
    assert made.evaluate("document.documentElement.scrollWidth") <= 400
    tallest = "Math.max(...[...document.querySelectorAll('tr')].map(row => row.offsetHeight))"
    assert made.evaluate(tallest) < 180, "what is outside the window makes no row tall"


def test_all_can_be_reached_by_keyboard(open_page):
    made = open_page()
    made.keyboard.press("Tab")
    assert made.evaluate("document.activeElement.className") == "skip"
    made.keyboard.press("Enter")
    made.wait_for_url("**/*#main")
    made.keyboard.press("Tab")
    made.keyboard.press("Tab")
    assert made.evaluate("document.activeElement.closest('main') !== null")
