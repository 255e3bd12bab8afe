"""The result of an explanation: which input positions a prediction drew on, by exact maximum flow.

An :class:`Attribution` is a frozen value. Everything in it is *positional*: a score belongs to the position of a
token, never to its text, so a token that occurs twice keeps two scores. It knows nothing of models and needs numpy
alone; pictures and files are reached by a lazy import, so that a stored result can be read where no torch is.

``_result.py``      the result
``_kinds.py``       what its scores can be
``_parts.py``       what it holds beside arrays
``_scoring.py``     from a network to scores, and the network they can be computed from again
``_operations.py``  parts, differences, groups of tokens, checks
``_groups.py``      words and sentences
``_ranks.py``       rank correlation
"""

from ..maxflow import NONE, SINK, SOURCE
from ._groups import UNITS, Grouping, grouping, options_word
from ._kinds import ATTRIBUTIONS, FLOWS, Attributed
from ._operations import regrouped, require_alike
from ._operations import said as units_said
from ._parts import Grid, PairFlow, Score
from ._ranks import spearman
from ._result import Attribution
from ._scoring import Evidence, Scores, Scoring, Solved, divided

__all__ = [
    "ATTRIBUTIONS",
    "FLOWS",
    "NONE",
    "SINK",
    "SOURCE",
    "UNITS",
    "Attributed",
    "Attribution",
    "Evidence",
    "Grid",
    "Grouping",
    "PairFlow",
    "Score",
    "Scores",
    "Scoring",
    "Solved",
    "divided",
    "grouping",
    "options_word",
    "regrouped",
    "require_alike",
    "spearman",
    "units_said",
]
