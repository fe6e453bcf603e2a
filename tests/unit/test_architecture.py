"""The house, as its imports tell: no circle among modules, no name for two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

import smoothapi

PACKAGE = Path(smoothapi.__file__).parent


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("smoothapi", cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(graph):
    circles = [
        f"{module} -> {imported} -> ... -> {module}"
        for module in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if graph.chain_exists(imported, module)
    ]
    assert circles == []


def test_no_two_classes_of_one_name():
    found = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].add(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
