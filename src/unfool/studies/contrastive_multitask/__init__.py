"""System A: does a contrastive auxiliary task, trained in parallel, make a classifier robust?"""

from unfool.studies.contrastive_multitask.study import ContrastiveMultitask as ContrastiveMultitask
