"""Pages that need nothing beside them: of a run, of a plan, of advice.

run_files -> result_sections, training_sections (with charts, schedule_figure) -> page
plan_page, advice_page
All go through pages, which fills the templates; style and svg are what all drawings share.
"""

from tpdiff_jax.report.advice_page import write_advice_page
from tpdiff_jax.report.page import write_report
from tpdiff_jax.report.plan_page import write_plan_page

__all__ = ["write_advice_page", "write_plan_page", "write_report"]
