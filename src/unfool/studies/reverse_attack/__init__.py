"""System B: does moving an attacked image down a contrastive loss bring its class back?"""

from unfool.studies.reverse_attack.study import ReverseAttack as ReverseAttack
