"""What a score can be: a flow, a share of a joint flow, or what flows are compared with."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["ADDITIVE", "ATTRIBUTIONS", "COMBINATION", "FLOWS", "SIGNED", "Attributed", "Kind"]

Kind = Literal["decoder", "encoder", "encoder-decoder"]
Attributed = Literal[
    "independent",
    "shapley",
    "fair",
    "barrier",
    "rollout",
    "widest_path",
    "raw_attention",
    "mean_attention",
    "gradient_x_input",
    "leave_one_out",
    "random",
]

FLOWS = ("independent", "shapley", "fair", "barrier")
ATTRIBUTIONS: tuple[Attributed, ...] = get_args(Attributed)
COMBINATION = "combination"
"""Of results that were added, subtracted or scaled."""

SIGNED = ("gradient_x_input", "leave_one_out", COMBINATION)
"""Scores that may be below zero."""

ADDITIVE = ("rollout", "raw_attention", "mean_attention", "gradient_x_input")
"""The score of several tokens is the sum of theirs."""
