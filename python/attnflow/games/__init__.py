"""What players send to a sink together: the cooperative game v(S) = maximum flow from S, and fair shares of it.

``_game.py``     the game, and the one call of the kernel that all else is made of
``_orders.py``   orders of players
``_shares.py``   float64 shares that add up to the last bit
``_shapley.py``  Shapley values, exact and sampled
``_joint.py``    one flow of all players, split fairly
``_barrier.py``  the log-barrier centre of all such flows; ``_laplacian.py``, its linear systems
"""

from ._game import Game
from ._joint import JointFlow, joint_flow
from ._shapley import ShapleyValues, shapley_values

__all__ = ["Game", "JointFlow", "ShapleyValues", "joint_flow", "shapley_values"]
