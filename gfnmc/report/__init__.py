"""Reports: a comparison, given as data, as a terminal table and as one HTML file.

A report is made from the document that `gfnmc.experiments` produces and from nothing else, so that a saved `.json` file
gives the same report later. matplotlib, jinja2 and rich load when they are first used.
"""

from gfnmc.report.files import check_writable, save
from gfnmc.report.html import render
from gfnmc.report.table import comparison_table, verdict_lines

__all__ = ["check_writable", "comparison_table", "render", "save", "verdict_lines"]
