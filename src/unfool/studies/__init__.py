"""Studies: one folder a source system, with its table as data, its networks, and a verdict on each of its claims."""

from unfool.studies.framework import STUDIES, Study, load_study, reopen_study, run_study

__all__ = ["STUDIES", "Study", "load_study", "reopen_study", "run_study"]
