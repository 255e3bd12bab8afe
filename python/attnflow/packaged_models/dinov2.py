"""DINOv2, which sees an image as patches: the backbone of a saliency model that is stored as ONNX.

The export kept names for its biases, and for its weight matrices only the operations that use them.
"""

from __future__ import annotations

from typing import Any

from ..errors import FileFormatError
from . import _onnx
from ._packages import Progress, package_folder
from ._transformers import load_weights

__all__ = ["load_dinov2"]

_BACKBONE = "backbone."
_ANONYMOUS = "onnx::"


def load_dinov2(*, progress: Progress | None = None) -> tuple[Any, Any]:
    """DINOv2 ViT-S/14 and its image processor, in float32: a ``Dinov2Model`` of 12 layers without a head.

    The processor scales an image to 256 pixels on its shorter side and cuts 224 x 224 out of its middle: 16 x 16
    patches, in rows, after one position for the whole image. The model also takes other sizes that are multiples of 14.

    The weights are those that the package's saliency model uses; it does not say whether it trained them further.

    Raises
    ------
    MissingDependencyError
        If the package with the weights, or one that loads them, is not installed.
    FileFormatError
        If the file with the weights is not the one that is known.

    References
    ----------
    M. Oquab et al., DINOv2: learning robust visual features without supervision, TMLR, 2024.

    Examples
    --------
    >>> from attnflow import packaged_models
    >>> model, processor = packaged_models.load_dinov2()  # doctest: +SKIP
    >>> image = processor(PIL.Image.open("cat.jpg"), return_tensors="pt")  # doctest: +SKIP
    >>> model(**image).last_hidden_state.shape  # doctest: +SKIP
    torch.Size([1, 257, 384])
    """
    file = package_folder("DINOv2") / "models" / "vit_s_focus.onnx"
    if progress is not None:
        progress("loading DINOv2 ViT-S/14")
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,  # of the 37 x 37 positions; they are interpolated for other sizes
        patch_size=14,
        use_mask_token=False,  # which only training needs
    )
    model = load_weights("Dinov2Model", config, _weights(_onnx.read(file)), "DINOv2-ViT-S-14")
    # Where there is one that is called after PIL, the other needs torchvision.
    name = "BitImageProcessorPil" if hasattr(transformers, "BitImageProcessorPil") else "BitImageProcessor"
    processor = getattr(transformers, name)(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return model, processor


def _weights(graph: _onnx.Graph) -> dict[str, Any]:
    """The backbone's weights by transformers' names, which the export's are but for those that it lost."""
    import torch

    weights = {
        name.removeprefix(_BACKBONE): torch.from_numpy(array)
        for name, array in graph.weights.items()
        if name.startswith(_BACKBONE)
    }
    positions = {}
    for node, inputs in graph.nodes:
        # "/backbone/encoder/layer.0/mlp/fc1/MatMul" multiplies from the right with the transpose of fc1.weight.
        module, _, operation = node.removeprefix("/backbone/").rpartition("/")
        for name in inputs:
            if name.startswith(_ANONYMOUS) and name in graph.weights:
                tensor = torch.from_numpy(graph.weights[name])
                if operation == "MatMul":
                    weights[f"{module.replace('/', '.')}.weight"] = tensor.T.contiguous()
                elif module == "embeddings":
                    positions[operation] = tensor
    if not positions:
        raise FileFormatError("the ONNX graph has no positions: it is not the one that is known")
    # Interpolated patch by patch, but for the position of the whole image, which comes first.
    weights["embeddings.position_embeddings"] = torch.cat(
        sorted(positions.values(), key=lambda tensor: tensor.shape[1]), dim=1
    )
    return weights
