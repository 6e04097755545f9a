"""report.html: what a run did and reached, as one page that needs nothing beside it.

run_files -> result_sections, training_sections (with charts, schedule_figure) -> page
"""

from tpdiff_jax.report.page import write_report

__all__ = ["write_report"]
