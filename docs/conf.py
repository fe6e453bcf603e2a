"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from smoothapi import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "smoothapi"
author = "The smoothapi maintainers"
project_copyright = "the smoothapi maintainers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "facts"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False
smartquotes_action = "D"  # dashes only: quotes in examples stay as they are typed
default_role = "code"  # what stands in backquotes in a docstring is code
python_maximum_signature_line_length = 80

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_custom_sections = [
    ("Fixtures to give", "params_style"),
    ("Class attributes to override", "params_style"),
]

html_theme = "furo"
html_title = f"smoothapi {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False
