"""System D: when does a self-supervised auxiliary help, and when is its reversal worth anything?"""

from unfool.studies.auxiliary_reversal.study import AuxiliaryReversal as AuxiliaryReversal
