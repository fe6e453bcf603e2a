"""The documentation, as it is built: no markup shows, and every public name and option is there."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from sphinx.util.inventory import InventoryFile

import smoothapi
import smoothapi.adapting
import smoothapi.gateway
import smoothapi.services
import smoothapi.testing
from smoothapi.cli import app

DOCS = Path(__file__).parents[1] / "docs"
MARKUP = re.compile(
    r"""
    \.\.\ [\w:-]+::                    # a directive of reStructuredText
    | :[\w:-]+:`                       # a role
    | ^:[\w-]+:\s                      # an option of a directive
    | ``                               # literals, and fences of Markdown
    | ^\#+\s                           # a heading of Markdown
    | \]\([\w./\#-]+\)                 # a link of Markdown
    """,
    re.VERBOSE | re.MULTILINE,
)


class Text(HTMLParser):
    """The text of a page's article, what stands in <pre> left out."""

    def __init__(self, page):
        super().__init__()
        self._inside = self._pre = 0
        self.parts = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._inside += tag == "article"
        self._pre += tag == "pre"

    def handle_endtag(self, tag):
        self._inside -= tag == "article"
        self._pre -= tag == "pre"

    def handle_data(self, data):
        if self._inside and not self._pre:
            self.parts.append(data)


@pytest.fixture(scope="module")
def built():
    """What `make docs` built, if nothing has changed since; else it is built here."""
    folder = DOCS / "_build"
    if not is_newer(folder / "objects.inv", than=sources()):
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-b", "html", DOCS, folder],
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


def sources():
    """Yield all files that a page may be made of."""
    root = DOCS.parent
    yield from (path for path in DOCS.rglob("*") if "_build" not in path.parts)
    for folder, kind in [("smoothapi", "*.py"), ("smoothapi", "*.md"), ("adapters", "*.py")]:
        yield from (root / folder).rglob(kind)


def is_newer(made, *, than):
    return made.exists() and all(
        path.stat().st_mtime < made.stat().st_mtime
        for path in than
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_pages_are_built_again_when_a_source_has_changed(tmp_path):
    made, page = tmp_path / "objects.inv", tmp_path / "page.md"
    page.touch()
    assert not is_newer(made, than=[page])
    made.touch()
    os.utime(page, (1, 1))
    assert is_newer(made, than=[page])
    os.utime(page, (2**31, 2**31))
    assert not is_newer(made, than=[page])


def pages():
    names = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    return sorted(str(name) for name in names if "_build" not in name.parts)


@pytest.mark.parametrize("page", pages())
def test_no_markup_is_shown_as_text(built, page):
    text = "".join(Text((built / page).read_text()).parts)
    assert len(text) > 100
    shown = MARKUP.search(text)
    assert not shown, text[max(0, shown.start() - 100) : shown.end() + 100]


@pytest.mark.parametrize(
    "shown",
    [
        ".. program:: smoothapi budget",
        ":option:`--home`",
        "text\n:prog: smoothapi\n",
        "```{click} smoothapi.cli:app",
        "see [the guide](../how-to/resume.md)",
    ],
)
def test_markup_would_be_noticed(shown):
    assert MARKUP.search("".join(Text(f"<article><p>{html.escape(shown)}</p></article>").parts))


class Links(HTMLParser):
    """Where a page leads to, and the places in it that can be led to."""

    def __init__(self, page):
        super().__init__()
        self.leads, self.places = [], {""}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.update(value for name in ("id", "name") if (value := found.get(name)))
        if address := found.get("href" if tag in ("a", "link") else "src"):
            self.leads.append(address)


@pytest.fixture(scope="module")
def links(built):
    return {
        page: Links(page.read_text(encoding="utf-8"))
        for page in built.rglob("*.html")
        if "_static" not in page.parts
    }


def broken(links, page):
    """Yield what a page leads to in vain."""
    for address in links[page].leads:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        there = not parts.fragment or target not in links
        if not target.exists() or not (there or unquote(parts.fragment) in links[target].places):
            yield address


def test_every_link_within_leads_to_a_page_and_a_place_in_it(links):
    assert len(links) > len(pages())
    assert {str(page): found for page in links if (found := list(broken(links, page)))} == {}


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page, other = tmp_path / "a.html", tmp_path / "b.html"
    other.write_text('<p id="here">')
    page.write_text('<a href="b.html#here"><a href="b.html#gone"><a href="c.html"><a href="#no">')
    links = {path: Links(path.read_text()) for path in (page, other)}
    assert list(broken(links, page)) == ["b.html#gone", "c.html", "#no"]


def test_links_to_elsewhere_are_encrypted(links):
    """Whether they still lead somewhere says `make links`, which needs a network."""
    elsewhere = {lead for found in links.values() for lead in found.leads if "://" in lead}
    assert elsewhere
    assert {lead for lead in elsewhere if not lead.startswith("https://")} == set()


@pytest.fixture(scope="module")
def documented(built):
    """{kind: names} of all that has an entry of its own."""
    found = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="").data
    return {kind: set(entries) for kind, entries in found.items()}


@pytest.mark.parametrize(
    "module",
    [smoothapi, smoothapi.adapting, smoothapi.gateway, smoothapi.services, smoothapi.testing],
)
def test_every_public_name_is_on_a_page(documented, module):
    names = {name for kind, entries in documented.items() if kind[:3] == "py:" for name in entries}
    homes = (module.__name__, "smoothapi.errors")
    missing = [
        name for name in module.__all__ if not any(f"{home}.{name}" in names for home in homes)
    ]
    assert not missing


def options(command, path):
    yield from ((path, param) for param in command.params if isinstance(param, click.Option))
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, [*path, name])


def test_every_option_of_every_command_is_on_the_page(documented):
    listed = documented["std:cmdoption"]
    missing = [
        f"{' '.join(path)} {option}"
        for path, param in options(app, ["smoothapi"])
        for option in param.opts
        if not param.hidden and f"{'-'.join(path)}.{option}" not in listed
    ]
    assert not missing
