"""The result of an explanation: which input positions a prediction drew on, by exact maximum flow.

An :class:`Attribution` is a frozen value. Everything in it is *positional*: a score belongs to the position of a
token, never to its text, so a token that occurs twice keeps two scores. It knows nothing of models and needs numpy
alone; pictures and files are reached by a lazy import, so that a stored result can be read where no torch is.

``_result.py``  the result
``_parts.py``   what it holds beside arrays
``_ranks.py``   rank correlation
"""

from ..maxflow import NONE, SINK, SOURCE
from ._parts import Grid, PairFlow, Score
from ._ranks import spearman
from ._result import ATTRIBUTIONS, Attribution

__all__ = ["ATTRIBUTIONS", "NONE", "SINK", "SOURCE", "Attribution", "Grid", "PairFlow", "Score", "spearman"]
