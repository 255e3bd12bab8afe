"""From what other libraries return to networks: the layers found, put in order, and told apart.

Arrays need no adapter: :class:`attnflow.Network` takes those of numpy, torch, JAX and others as they are, and tuples of
them, which is what bertviz takes, too. Here is what comes wrapped: a model's outputs, a cache of activations, saved
proxies. Nothing of the library in question is imported; one file knows what its objects look like.

``_stacks``             what every adapter returns: the layers of each stack, and the network of them
``_transformers``       outputs of Hugging Face models, and tuples of attentions
``_transformer_lens``   caches of TransformerLens
``_nnsight``            what nnsight saved in a trace
"""

from ._nnsight import from_nnsight
from ._stacks import Stacks
from ._transformer_lens import from_transformer_lens
from ._transformers import from_transformers

__all__ = ["Stacks", "from_nnsight", "from_transformer_lens", "from_transformers"]
