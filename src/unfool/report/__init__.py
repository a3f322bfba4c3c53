"""Results made readable: a study's tables for page, documentation and terminal, its figures, and its one HTML page.

Everything here is computed from results, the metrics of run folders and a few gallery images; no model is evaluated,
and a transfer result is named transfer wherever it appears.
"""

from unfool.report.page import Page, write_page
from unfool.report.pictures.gallery import GalleryItem
from unfool.report.plots.curves import Curve
from unfool.report.publishing.markdown import markdown, results_section
from unfool.report.tables import rich_tables, study_tables

__all__ = ["Curve", "GalleryItem", "Page", "markdown", "results_section", "rich_tables", "study_tables", "write_page"]
