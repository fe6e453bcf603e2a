"""Every page of the documentation in a browser, on a telephone, a tablet and a desk: nothing is cut off.

Slow, as there are forty: `make look`, and `.ci/run`.
"""

from __future__ import annotations

import functools
import http.server
import threading

import pytest

from tests.test_docs import DOCS, built, pages  # noqa: F401  built is a fixture

WIDTHS = (400, 800, 1400)

# What nobody could read at this width: each as a text that says where it is.
FAULTS = """
() => {
  const seen = [], root = document.documentElement;
  const says = e => `${e.tagName.toLowerCase()}.${e.className} ${(e.innerText || e.src || '').replace(/\\s+/g, ' ').trim().slice(0, 60)}`;
  const shown = e => e.offsetParent !== null && getComputedStyle(e).visibility !== 'hidden';
  if (root.scrollWidth > root.clientWidth + 1) {
    const wide = [...document.querySelectorAll('article *')].filter(e =>
      shown(e) && e.getBoundingClientRect().right > root.clientWidth + 1);
    seen.push(`the page is ${root.scrollWidth} wide, for: ${wide.slice(0, 3).map(says).join(' | ')}`);
  }
  // On a telephone a table may scroll in its frame.
  const frames = 'article pre, article dt, article svg' + (innerWidth > 500 ? ', article .table-wrapper' : '');
  for (const e of document.querySelectorAll(frames))
    if (shown(e) && e.scrollWidth > e.clientWidth + 1)
      seen.push(`${e.scrollWidth - e.clientWidth} pixels out of sight: ${says(e)}`);
  for (const e of document.images)
    if (shown(e) && !(e.complete && e.naturalWidth > 0)) seen.push(`no picture: ${says(e)}`);
  for (const e of document.querySelectorAll('article img'))
    if (!e.alt) seen.push(`a picture without a text for who does not see it: ${says(e)}`);
  return seen;
}
"""


@pytest.fixture(scope="module")
def site(built):  # noqa: F811
    """The address of the pages on a server of this machine, as search needs one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser, site):
    """A page; it fails on errors, and on requests to elsewhere."""
    complaints = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "response",
            lambda answer: (
                answer.status < 400 or complaints.append(f"{answer.status} {answer.url}")
            ),
        )
        page.on(
            "request",
            lambda request: (
                request.url.startswith((site, "data:")) or complaints.append(request.url)
            ),
        )
        yield page
    assert complaints == []


@pytest.mark.slow
def test_nothing_is_cut_off_on_any_page(page, site):
    names = pages()
    assert len(names) > 30
    found = {}
    for name in names:
        page.goto(f"{site}/{name}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found |= {f"{name} at {width}": seen for seen in [page.evaluate(FAULTS)] if seen}
    assert not found, "\n".join(
        f"{where}: {fault}" for where, faults in found.items() for fault in faults
    )


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<pre style='overflow:auto'>" + "x" * 400 + "</pre>", "out of sight"),
        ("<div style='width:900px'>wide</div>", "the page is"),
        ("<img src='/missing.png' alt='it' width=9 height=9>", "no picture"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "without a text"),
    ],
)
def test_what_is_cut_off_would_be_noticed(browser, body, fault):
    with browser.new_context(viewport={"width": 400, "height": 900}) as context:
        page = context.new_page()
        page.set_content(f"<article>{body}</article>", wait_until="load")
        assert any(fault in seen for seen in page.evaluate(FAULTS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("noise key", "several_machines"),
        ("budget", "keep_a_budget"),
        ("emulate", "emulate"),
        ("certify_many", "python"),
    ],
)
def test_search_finds_the_page(page, site, words, name):
    page.goto(f"{site}/index.html")
    page.locator("input[name=q]").first.fill(words)
    page.locator("input[name=q]").first.press("Enter")
    page.wait_for_function(  # links are added one by one
        "document.querySelector('.search-summary')?.innerText.startsWith('Search finished')",
        timeout=60_000,
    )
    leads = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any(name in lead for lead in leads[:10]), leads[:10]


def test_the_pages_that_are_looked_at_are_all():
    assert {"index.html", "tutorial/first_certificate.html"} <= set(pages())
    assert len(pages()) == len([path for path in DOCS.rglob("*.md") if "_build" not in path.parts])
