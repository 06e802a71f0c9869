"""Reports: a comparison or a leaderboard, given as data, as terminal tables and as one HTML file.

A report is made from the document that `gfnmc.experiments` produces and from nothing else, so that a saved `.json` file
gives the same report later. matplotlib, jinja2 and rich load when they are first used.
"""

from gfnmc.report.files import check_writable, save
from gfnmc.report.html import render
from gfnmc.report.leaderboard import leaderboard_csv, leaderboard_html, leaderboard_table, save_leaderboard
from gfnmc.report.table import comparison_table, verdict_lines

__all__ = [
    "check_writable",
    "comparison_table",
    "leaderboard_csv",
    "leaderboard_html",
    "leaderboard_table",
    "render",
    "save",
    "save_leaderboard",
    "verdict_lines",
]
