"""From a model and its inputs to one contribution matrix a layer: the only room that knows torch and transformers.

:func:`attentions` runs the model once, looks at every attention layer while it runs, and reduces each to one matrix a
text; :func:`contributions` does so with any measure; :func:`from_modules` does it for any torch module, whose attention
modules it is told. The heads are reduced block by block of queries, so that the
``(H, n, n)`` tensor that ``output_attentions=True`` would return is never made. Where to read on:

``_contributions``  the public functions: check, run, assert, wrap up
``_result``         what they return: the layers of every stack
``_run``            one capture under way, by either path
``_inputs``         what the model is run on: what is accepted, what is refused
``_interface``      the main path: listening at transformers' attention interface
``_hooks``          the fallback: eager weights, caught module by module
``_modules``        any torch module: hooks on the attention modules that the caller names
``_attention``      probabilities of one layer, a block of queries at a time, and the proof that they are the model's
``_layers``         which layers ought to report, and the assertion that each did, once and in order
``_subblock``       residual, projection and norm around an attention, recognised and proved by numbers
``_finite``         numbers that are not finite, traced to the module they come from
``measures``        what a contribution is: raw attention, ALTI, and how to add another
``_memory``         how much a capture will hold, and files to hold it in
``_generation``     what a model says, before its attention is looked at
``_probe``          what it says of changed inputs, and the gradients by what it reads: baselines
``_state``          the promise to leave the model as it was found
"""

from __future__ import annotations

from attnflow.errors import MissingDependencyError

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        f"capturing a model's attention needs torch and transformers, and {error.name!r} is missing: "
        "pip install 'attnflow[torch]'"
    ) from error

from attnflow.capture import measures
from attnflow.capture._contributions import attentions, contributions
from attnflow.capture._generation import decoder_inputs, generate, is_encoder_decoder
from attnflow.capture._layers import is_causal
from attnflow.capture._memory import Estimate, estimate
from attnflow.capture._modules import from_modules
from attnflow.capture._probe import gradient_x_input, outputs
from attnflow.capture._result import Contributions, Layer

__all__ = [
    "Contributions",
    "Estimate",
    "Layer",
    "attentions",
    "contributions",
    "decoder_inputs",
    "estimate",
    "from_modules",
    "generate",
    "gradient_x_input",
    "is_causal",
    "is_encoder_decoder",
    "measures",
    "outputs",
]
