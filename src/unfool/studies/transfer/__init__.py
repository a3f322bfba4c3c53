"""System C: does pretraining without labels make a classifier robust, with few labels and at little cost?"""

from unfool.studies.transfer.study import Transfer as Transfer
