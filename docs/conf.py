"""Settings of Sphinx, which makes a site of these pages and the docstrings.

``sphinx-build docs build/docs`` does so, once ``requirements/docs.txt`` is
installed.
"""

from mmssm import __version__

project = 'mmssm'
release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
# Pages link to others of the repository, which the site lacks.
suppress_warnings = ['myst.xref_missing']
html_theme = 'furo'
