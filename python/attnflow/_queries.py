"""What can be asked of a network: flows, and shares of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _sweeps, games, maxflow
from ._kernel import Progress
from ._positions import Node, Positions, groups, integer
from .games import JointFlow, ShapleyValues
from .maxflow import Algorithm, Flows, Link

if TYPE_CHECKING:
    from .bottlenecks import Bottleneck, Paths

__all__ = ["Queries"]


class Queries:
    """Base of :class:`attnflow.Network`."""

    sizes: tuple[int, ...]
    links: tuple[Link, ...]
    inputs: tuple[int, ...]

    def source_flows(
        self,
        sinks: Positions = -1,
        *,
        sources: Positions | None = None,
        threads: int | None = None,
        algorithm: Algorithm = "auto",
        bottlenecks: bool = False,
        cuts: bool = False,
        flows: bool = False,
        check: bool = False,
        progress: Progress | None = None,
    ) -> Flows:
        """Maximum flow from every source to every sink, each pair on its own (the *independent* flows).

        Parameters
        ----------
        sinks : int, or sequence of ints and of sequences (or sets) of ints
            Positions of the last block, negative ones counting from the end. A sequence or set inside the sequence is
            joined in one super sink, and so is a set in its place.
        sources : the same, or None
            Positions of the inputs; a sequence or set inside is joined in one super source. None means each of them.
            Where several blocks hold inputs, positions count on from one to the next: of an encoder-decoder with n and
            m of them, 0 ... n - 1 are the encoder's and n ... n + m - 1 the decoder's.
        threads, algorithm, bottlenecks, cuts, flows, check, progress
            As for :func:`attnflow.maxflow.layered`.

        Returns
        -------
        maxflow.Flows
            ``values`` has shape (n_sinks, n_sources). Bottleneck codes from 0 on are indices of `links`, the layers.

        Raises
        ------
        InvalidArgumentError
            A sink or source that is no integer, or out of range, or an empty set of them.
        UnboundedFlowError
            A source reaches a sink through unbounded edges alone.

        Examples
        --------
        >>> import numpy as np
        >>> import attnflow
        >>> network = attnflow.Network.encoder(np.full((1, 3, 3), 1 / 3), residual=0.0)
        >>> network.source_flows([0, {1, 2}]).values.round(3)
        array([[0.333, 0.333, 0.333],
               [0.667, 0.667, 0.667]])
        """
        return maxflow.blocks(
            self.sizes,
            self.links,
            sources=self._input_nodes(self._inputs(sources, "sources")),
            sinks=self._outputs(sinks),
            threads=threads,
            algorithm=algorithm,
            bottlenecks=bottlenecks,
            cuts=cuts,
            flows=flows,
            check=check,
            progress=progress,
        )

    def shapley_values(
        self,
        sinks: Positions = -1,
        *,
        players: Positions | None = None,
        method: Literal["auto", "exact", "sampled"] = "auto",
        permutations: int | None = None,
        tolerance: float | None = None,
        seed: int = 0,
        threads: int | None = None,
        check: bool = False,
        progress: Progress | None = None,
    ) -> ShapleyValues:
        """Each player's share of what all send to a sink together: Shapley values of v(S) = maximum flow from S.

        Independent flows count shared capacity once for each player; these count it once [1]_. They are the only shares
        that add up to v of all players, treat equal players alike, give nothing to who adds nothing, and add up over
        games [2]_.

        Parameters
        ----------
        sinks : as for :meth:`source_flows`
            One game each.
        players : as the sources of :meth:`source_flows`
            An inner sequence or set is one player, such as the tokens of a word. None means each position.
        method : "auto", "exact" or "sampled"
            Exact: from all 2^n coalitions of up to 20 players. Sampled: the mean over random orders of players [3]_.
            "auto" is exact for up to 14 players where neither `permutations` nor `tolerance` is given.
        permutations : int, optional
            At most so many orders, an even number: each comes with its reverse. By default 1,000, and 1,000,000 where
            there is a tolerance.
        tolerance : float, optional
            Stop once no standard error is larger, in the unit of capacities; looked at after every 128 orders.
        seed : int
            Of the orders. The result depends on it, and not on the number of threads.
        threads, check, progress
            As for :func:`attnflow.maxflow.layered`; progress counts orders.

        Returns
        -------
        games.ShapleyValues
            ``values`` of shape (n_sinks, n_players), with standard errors.

        Raises
        ------
        InvalidArgumentError
            As for :meth:`source_flows`; players that share a position; more than 20 players for "exact"; an odd number
            of permutations, or none; a tolerance that is not positive; `permutations` or `tolerance` beside "exact"; a
            network that dropped edges.
        UnboundedFlowError
            A player reaches a sink through unbounded edges alone.

        Notes
        -----
        An order costs about one maximum flow: each player augments what those before him send. Exact values take
        comb(n, n/2) orders.

        References
        ----------
        .. [1] Ethayarajh and Jurafsky, "Attention Flows are Shapley Value Explanations", arXiv 2105.14652, speak of
           another game: of the flow that leaves each token in one maximum flow, which is not unique.
        .. [2] Shapley, "A Value for n-Person Games", 1953.
        .. [3] Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers &
           Operations Research 36 (2009).

        Examples
        --------
        Capacities of 10 and 6 share a bottleneck of 10. On their own, they send 10 and 6:

        >>> import attnflow
        >>> network = attnflow.Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])
        >>> network.source_flows().values, network.shapley_values().values
        (array([[10.,  6.]]), array([[7., 3.]]))
        """
        players_read = self._inputs(players, "players")
        return games.shapley_values(
            self._games(players_read, sinks),
            players_read,
            method=method,
            permutations=permutations,
            tolerance=tolerance,
            seed=seed,
            threads=threads,
            check=check,
            progress=progress,
        )

    def joint_flow(
        self,
        sinks: Positions = -1,
        *,
        rule: Literal["fair", "barrier", "any"] = "fair",
        tolerance: float = 1e-9,
        players: Positions | None = None,
        threads: int | None = None,
        check: bool = False,
        progress: Progress | None = None,
    ) -> JointFlow:
        """One maximum flow from all players together to a sink, and how much of it each of them sends.

        Parameters
        ----------
        sinks : as for :meth:`source_flows`
            One flow each.
        rule : "fair", "barrier" or "any"
            A maximum flow can split in many ways. "fair": the least share is as large as it can be, then the next, and
            so on, which is unique [1]_. "barrier": the centre of all maximum flows, which keeps furthest from empty and
            from full edges and is unique, too [2]_; needs scipy. "any": the first player sends all he can, the next
            what is left to him, and so on: an example of what an unspecified maximum flow may say, which depends on
            the order of the players.
        tolerance : float
            Of "barrier" alone: how far a flow may be from the centre, relative to its distance from its bounds.
        players, threads, check : as for :meth:`shapley_values`
        progress : callable, optional
            Counts sinks.

        Returns
        -------
        games.JointFlow
            ``values`` of shape (n_sinks, n_players), and the edges that carry the flow.

        Raises
        ------
        InvalidArgumentError, UnboundedFlowError
            As for :meth:`shapley_values`; an unknown `rule`; a tolerance that is not positive.
        MissingDependencyError
            scipy is not installed.

        Notes
        -----
        "fair" takes up to two maximum flows for each different share: n_players of them at most. "barrier" takes some
        tens of steps, each a banded system of as many unknowns as there are nodes.

        References
        ----------
        .. [1] Fujishige, "Lexicographically Optimal Base of a Polymatroid with Respect to a Weight Vector",
           Mathematics of Operations Research 5 (1980).
        .. [2] Azarkhalili and Libbrecht, "Generalized Attention Flow", arXiv 2502.15765, 2025.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])
        >>> network.joint_flow().values, network.joint_flow(rule="any").values
        (array([[5., 5.]]), array([[10.,  0.]]))
        """
        players_read = self._inputs(players, "players")
        return games.joint_flow(
            self._games(players_read, sinks),
            players_read,
            rule=rule,
            tolerance=tolerance,
            threads=threads,
            check=check,
            progress=progress,
        )

    def rollout(self, sinks: Positions = -1, *, sources: Positions | None = None) -> NDArray[np.float64]:
        """Attention rollout: the sum, over all paths from a source to a sink, of the product of their capacities.

        What flows are compared with [1]_. Where no node receives more than 1 in all, a feasible flow, hence never above
        the maximum flow.

        Parameters
        ----------
        sinks, sources : as for :meth:`source_flows`
            A group stands for the sum over its members.

        Returns
        -------
        numpy.ndarray
            (n_sinks, n_sources) float64, like the `values` of a flow.

        Raises
        ------
        InvalidArgumentError
            As for :meth:`source_flows`; a network that dropped edges, or whose blocks form a circle (chained).
        InvalidCapacityError
            Unbounded edges.

        Notes
        -----
        O(n_sinks n_edges).

        References
        ----------
        .. [1] Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, 2020.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.encoder([[[1.0, 0.0], [0.5, 0.5]]] * 2, residual=0.0)
        >>> network.rollout(), network.source_flows().values
        (array([[0.75, 0.25]]), array([[1. , 0.5]]))
        """
        return _sweeps.through_blocks("rollout", *self._ends(sources, sinks))

    def widest_path(self, sinks: Positions = -1, *, sources: Positions | None = None) -> NDArray[np.float64]:
        """The bottleneck of the best single path from a source to a sink [1]_, never above the maximum flow.

        Parameters
        ----------
        sinks, sources : as for :meth:`source_flows`
            A group stands for the best of its members.

        Returns
        -------
        numpy.ndarray
            (n_sinks, n_sources) float64; infinite along unbounded edges alone.

        Raises
        ------
        InvalidArgumentError
            As for :meth:`source_flows`; a network that dropped edges.

        Notes
        -----
        O(n_sinks n_edges); in a chained network as often as generated tokens are read again on a path.

        References
        ----------
        .. [1] arXiv 2407.06182.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.encoder([[[1.0, 0.0], [0.3, 0.7]]] * 2, residual=0.0)
        >>> network.widest_path()
        array([[0.3, 0.7]])
        """
        return _sweeps.through_blocks("widest path", *self._ends(sources, sinks))

    def bottleneck(
        self,
        source: int | Iterable[int],
        sink: int | Iterable[int] = -1,
        *,
        threads: int | None = None,
        check: bool = False,
    ) -> Bottleneck:
        """What limits the maximum flow from a source to a sink.

        Parameters
        ----------
        source, sink : int, or several ints, which are joined
            Positions as for :meth:`source_flows`.
        threads, check
            As for :func:`attnflow.maxflow.layered`.

        Returns
        -------
        bottlenecks.Bottleneck
            The minimum cuts nearest the source and nearest the sink, the edges that are full, and those where more
            capacity would let more through.

        Raises
        ------
        InvalidArgumentError, UnboundedFlowError
            As for :meth:`source_flows`.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])
        >>> both = network.bottleneck([0, 1])
        >>> both.value, both.cut.link.tolist(), both.cut.capacity.tolist(), both.gain(0)
        (10.0, [1], [10.0], 6.0)
        """
        from . import bottlenecks

        return bottlenecks.bottleneck(*self._pair(source, sink), {"threads": threads, "check": check})

    def paths(
        self,
        source: int | Iterable[int],
        sink: int | Iterable[int] = -1,
        *,
        most: int | None = None,
        threads: int | None = None,
        check: bool = False,
    ) -> Paths:
        """A maximum flow from a source to a sink, taken apart into paths.

        Parameters
        ----------
        source, sink, threads, check
            As for :meth:`bottleneck`.
        most : int, optional
            At most so many paths, the largest.

        Returns
        -------
        bottlenecks.Paths

        Raises
        ------
        InvalidArgumentError, UnboundedFlowError
            As for :meth:`source_flows`; `most` < 1.

        Examples
        --------
        >>> import attnflow
        >>> network = attnflow.Network.from_blocks([2, 1, 1], [(0, 1, [[10, 6]]), (1, 2, [[10]])])
        >>> network.paths([0, 1])[0]
        Path(nodes=((0, 0), (1, 0), (2, 0)), flow=10.0)
        """
        most = None if most is None else integer(most, "most", low=1)
        from . import bottlenecks

        return bottlenecks.paths(*self._pair(source, sink), most, {"threads": threads, "check": check})

    def _ends(
        self, sources: Positions | None, sinks: Positions
    ) -> tuple[tuple[int, ...], tuple[Link, ...], list[list[Node]], list[list[Node]]]:
        """The network, its sources and its sinks."""
        return self.sizes, self.links, self._input_nodes(self._inputs(sources, "sources")), self._outputs(sinks)

    def _pair(self, source: Any, sink: Any) -> tuple[tuple[int, ...], tuple[Link, ...], list[Node], list[Node]]:
        """The network, one source and one sink."""
        sources = self._input_nodes(self._inputs([source], "source"))
        return self.sizes, self.links, sources[0], self._outputs([sink])[0]

    def _inputs(self, given: Positions | None, name: str) -> list[list[int]]:
        """Groups of input positions, counted through all blocks of inputs; by default each by itself."""
        n = sum(self.sizes[block] for block in self.inputs)
        return groups(range(n) if given is None else given, name, n, *self.inputs)

    def _input_nodes(self, given: list[list[int]]) -> list[list[Node]]:
        nodes = [(block, k) for block in self.inputs for k in range(self.sizes[block])]
        return [[nodes[position] for position in group] for group in given]

    def _outputs(self, sinks: Positions) -> list[list[Node]]:
        top = len(self.sizes) - 1
        return [[(top, position) for position in group] for group in groups(sinks, "sinks", self.sizes[top], top)]

    def _games(self, players: list[list[int]], sinks: Positions) -> list[games.Game]:
        nodes = tuple(map(tuple, self._input_nodes(players)))
        return [games.Game(self.sizes, self.links, nodes, tuple(sink)) for sink in self._outputs(sinks)]
