"""The paper as data, its claims, and the reproduction with its report."""

from nnlite.paper.claims import decide_claims
from nnlite.paper.plan import Plan
from nnlite.paper.reproduction import Reproduction, reproduce
from nnlite.paper.scores import Scores
from nnlite.paper.tables import BEST_MODELS, MODELS, ROWS, Model

__all__ = ["BEST_MODELS", "MODELS", "ROWS", "Model", "Plan", "Reproduction", "Scores", "decide_claims", "reproduce"]
