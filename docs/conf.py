"""How `make docs` builds the site: Sphinx, MyST for Markdown, Furo for looks. Nothing is fetched.

The pages are plain Markdown that reads the same on a code host. The reference comes from
docstrings, which `house_docstrings` turns from the house's plain text into reStructuredText.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))

from house_docstrings import as_restructured_text

project = "kv-claims"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["site", "examples"]
# Headings are link targets, as on a code host: a link to one that is not there fails the build.
myst_heading_anchors = 3
html_theme = "furo"
html_title = "kv-claims"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# A quote in a docstring is Python's.
smartquotes = False
# `names` in docstrings are shown as code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# Pygments knows no listing that is a terminal's output beside a command.
highlight_language = "text"


def setup(app):
    app.connect("autodoc-process-docstring", as_restructured_text)
