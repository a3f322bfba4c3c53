"""The framework of studies: describe networks, measurements and claims; the rest follows."""

from unfool.evaluation.results.published import Published, table
from unfool.evaluation.statistics.estimate import Estimate, counted
from unfool.evaluation.statistics.gains import gain, least_of
from unfool.evaluation.statistics.rules import Above, AtLeast, AtMost, Below, HalfOf, Rule
from unfool.studies.framework.adaptive import Audited, Laddered
from unfool.studies.framework.claims import Beyond, Claim, Control, Difference, evidence
from unfool.studies.framework.measurements import Attacked, Clean, Corrupted, Examples, Figures, row_of
from unfool.studies.framework.networks import Defended, NetworkSpec
from unfool.studies.framework.pieces import Images, Measured, Measurement
from unfool.studies.framework.probes import Probed, ProbedStages
from unfool.studies.framework.results import Results
from unfool.studies.framework.run import reopen_study, run_study
from unfool.studies.framework.study import STUDIES, Study, load_study
from unfool.studies.framework.workspace import Piece, Workspace

__all__ = ["STUDIES", "Above", "AtLeast", "AtMost", "Attacked", "Audited", "Below", "Beyond", "Claim", "Clean"]
__all__ += ["Control", "Corrupted", "Defended", "Difference", "Estimate", "Examples", "Figures", "HalfOf"]
__all__ += ["Images", "Laddered", "Measured", "Measurement", "NetworkSpec", "Piece", "Probed", "ProbedStages"]
__all__ += ["Published", "Results", "Rule", "Study", "Workspace", "counted", "evidence", "gain", "least_of"]
__all__ += ["load_study", "reopen_study", "row_of", "run_study", "table"]
