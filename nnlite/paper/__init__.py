"""The paper as data, its claims, and the reproduction with its report."""

from nnlite.paper.claims import CLAIMS, decide_claims
from nnlite.paper.reproduction import Plan, Reproduction, reproduce
from nnlite.paper.scores import Scores, paper_scores
from nnlite.paper.tables import BEST_MODELS, MODELS, Model
from nnlite.paper.targets import TARGETS

__all__ = [
    "BEST_MODELS",
    "CLAIMS",
    "MODELS",
    "TARGETS",
    "Model",
    "Plan",
    "Reproduction",
    "Scores",
    "decide_claims",
    "paper_scores",
    "reproduce",
]
