"""Pages that need nothing beside them: report.html of a run, plan_TOPOLOGY.html of a plan.

run_files -> result_sections, training_sections (with charts, schedule_figure) -> page
plan_page
Both go through pages, which fills the templates; style and svg are what all drawings share.
"""

from tpdiff_jax.report.page import write_report
from tpdiff_jax.report.plan_page import write_plan_page

__all__ = ["write_plan_page", "write_report"]
