"""From a network to scores: the flow of each player alone, or shares of what all of them send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..attribution import ATTRIBUTIONS
from ..errors import InvalidArgumentError
from ..network import Network

__all__ = ["Scores", "Shares", "joined"]

_SAMPLING = ("permutations", "tolerance", "seed")


@dataclass(frozen=True)
class Scores:
    """Arrays (n_sinks, n_players)."""

    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    standard_errors: NDArray[np.float64] | None = None
    permutations: int = 0


class Shares:
    """Which scores are asked for.

    Parameters
    ----------
    attribution, sampling
        As for :func:`attnflow.explain`.
    """

    def __init__(self, attribution: Any, sampling: Any) -> None:
        if not isinstance(attribution, str) or attribution not in ATTRIBUTIONS:
            raise InvalidArgumentError(
                f"attribution must be one of {', '.join(map(repr, ATTRIBUTIONS))}, got {attribution!r}"
            )
        if sampling is not None and not isinstance(sampling, Mapping):
            raise InvalidArgumentError(f"sampling must be a mapping of {', '.join(_SAMPLING)}, got {sampling!r}")
        unknown = [name for name in sampling or () if name not in _SAMPLING]
        if unknown:
            raise InvalidArgumentError(f"sampling has no {unknown[0]!r}: it may hold {', '.join(_SAMPLING)}")
        if sampling and attribution != "shapley":
            raise InvalidArgumentError(f"sampling is of attribution='shapley', and it is {attribution!r}: leave it out")
        self.attribution = cast(Literal["independent", "shapley", "fair", "barrier"], attribution)
        self.sampling = dict(sampling or {})
        if attribution == "shapley":  # tried before the model runs for nothing
            Network.encoder(np.ones((1, 1, 1))).shapley_values(**self.sampling)

    def of(
        self,
        network: Network,
        sinks: Any,
        players: Sequence[int],
        progress: Callable[[int, int], object] | None,
        solver: Mapping[str, Any],
    ) -> Scores:
        """Shares of a joint flow, of which there is one."""
        assert self.attribution != "independent"
        options = {"threads": solver["threads"], "check": solver["check"], "progress": progress}
        if self.attribution == "shapley":
            found = network.shapley_values(sinks, players=players, **self.sampling, **options)
            # Where orders were drawn, two standard errors are much more than what rounding lost.
            width = 2 * found.standard_errors + found.rounding[:, None]
            errors = found.standard_errors if found.method == "sampled" else None
            lower = np.maximum(found.values - width, 0)
            return Scores(found.values, lower, found.values + width, errors, max(found.permutations))
        split = network.joint_flow(sinks, rule=self.attribution, players=players, **options)
        width = split.rounding[:, None] + split.errors[:, None] * split.values
        return Scores(split.values, np.maximum(split.values - width, 0), split.values + width)

    @property
    def joint(self) -> bool:
        """Whether scores are shares of what all players send."""
        return self.attribution != "independent"

    def options(self) -> dict[str, Any]:
        """What a result says of them."""
        return {} if not self.joint else {"attribution": self.attribution, **self.sampling}

    def words(self, scores: Scores) -> str:
        """What a score is."""
        how = f"sampled from {scores.permutations} orders of the players" if scores.permutations else "exact"
        return {
            "independent": "independent maximum flows: from each player alone to the target",
            "shapley": f"Shapley values ({how}) of the maximum flow from all players together to the target",
            "fair": "the fair split of the maximum flow from all players together to the target",
            "barrier": "the log-barrier centre of the maximum flows from all players together to the target",
        }[self.attribution]


def joined(parts: Sequence[Scores]) -> Scores:
    """Of several runs, one a sink."""
    errors = [part.standard_errors for part in parts if part.standard_errors is not None]
    return Scores(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.lower for part in parts]),
        np.concatenate([part.upper for part in parts]),
        np.concatenate(errors) if errors else None,
        max(part.permutations for part in parts),
    )
