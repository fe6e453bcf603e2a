"""The public names: exactly these, light to import, one way only."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest

import smoothapi
from smoothapi import errors


def test_all_is_exactly_what_can_be_imported():
    for name in smoothapi.__all__:
        assert getattr(smoothapi, name) is not None
    assert dir(smoothapi) == sorted(smoothapi.__all__)
    loaded = [name for names in smoothapi._HOMES.values() for name in names]
    assert sorted([*loaded, "__version__"]) == sorted(smoothapi.__all__)


def test_every_error_is_public_and_in_the_tree_of_the_docstring():
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SmoothAPIError)
    }
    assert kinds <= set(smoothapi.__all__)
    assert all(name in (errors.__doc__ or "") for name in kinds)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        smoothapi.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import smoothapi", "from smoothapi import Smoother", "import smoothapi.certify"],
)
def test_importing_loads_no_torch_no_sdk_and_no_scipy_stats(statement):
    script = (
        f"import sys; {statement}; heavy = {{'torch', 'boto3', 'google.cloud', 'azure', "
        "'requests', 'scipy.stats', 'matplotlib'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_smoother_loads_what_it_works_with_no_sooner_than_one_is_made():
    """Half a second, for programs that import it and may never make one."""
    script = (
        "import sys; from smoothapi import Smoother; heavy = {'scipy', 'numpy', 'PIL', 'pydantic', "
        "'diskcache', 'tenacity', 'sqlite3', 'email', 'smoothapi.session', 'smoothapi.store'} "
        "& set(sys.modules); sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_hints_of_the_smoother_resolve():
    assert typing.get_type_hints(smoothapi.Budget)


def test_the_readme_example_runs(tmp_path):
    from pathlib import Path

    readme = Path(__file__).parents[2] / "README.md"
    blocks = readme.read_text().split("```python\n")[1:]
    assert blocks, "the README shows a first certificate in Python"
    code = blocks[0].split("```")[0].replace('"photo.jpg"', repr(str(photo())))
    exec(compile(code, "README.md", "exec"), {})


def photo():
    from pathlib import Path

    return Path(__file__).parents[2] / "examples" / "photos" / "school_bus.jpg"
