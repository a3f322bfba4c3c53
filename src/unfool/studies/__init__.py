"""Studies: one file a source system, with its table as data, its stages, and a verdict on each of its claims."""

from unfool.studies.base import STUDIES, Outcome, Study, reopen_study, run_study

__all__ = ["STUDIES", "Outcome", "Study", "reopen_study", "run_study"]
