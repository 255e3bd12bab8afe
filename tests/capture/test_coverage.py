"""The judge of the coverage table: that it notices what is wrong, and builds what it judges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from compare_attention import compare  # noqa: E402
from eager_reference import Reference, reference  # noqa: E402
from tiny_models import ModelClass, prepare  # noqa: E402


def captured(**lists: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"encoder": [], "decoder": [], "cross": [], **lists})


def layers(count: int, rows: int = 5, keys: int = 5) -> list[Any]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.rand(1, rows, keys, generator=generator).softmax(dim=-1) for _ in range(count)]


def test_what_eager_returned_is_right() -> None:
    returned = layers(2)
    error, checked, fault = compare(captured(decoder=returned), Reference(returned={"attentions": returned}), {})
    assert (error, checked, fault) == (0.0, "returned", "")


def test_layers_in_another_order_are_wrong() -> None:
    returned = layers(2)
    assert compare(captured(decoder=returned[::-1]), Reference(returned={"attentions": returned}), {})[0] > 0.01


@pytest.mark.parametrize("lists", [{}, {"encoder": layers(1)}])
def test_a_missing_layer_is_wrong(lists: Any) -> None:
    returned = layers(2)
    eager = Reference(returned={"encoder_attentions": returned}, softmaxes=returned)
    assert compare(captured(**lists), eager, {})[2]


def test_a_missing_kind_is_wrong() -> None:
    eager = Reference(returned={"decoder_attentions": layers(2), "cross_attentions": layers(2, keys=7)})
    assert "cross_attentions" in compare(captured(decoder=layers(2)), eager, {})[2]


def test_what_no_softmax_computed_is_wrong() -> None:
    assert compare(captured(encoder=layers(1)), Reference(softmaxes=layers(1, rows=4)), {})[2]
    assert compare(captured(encoder=[layers(1)[0] * torch.nan]), Reference(softmaxes=layers(1)), {})[2]


def test_padding_does_not_count() -> None:
    returned = layers(1)
    other = [returned[0].clone()]
    other[0][0, -1] = 0
    eager, mask = Reference(returned={"attentions": returned}), torch.tensor([[1, 1, 1, 1, 0]])
    assert compare(captured(decoder=other), eager, {"attention_mask": mask})[0] == 0
    assert compare(captured(decoder=other), eager, {})[0] > 0.01


@pytest.mark.parametrize(
    ("family", "name", "kinds"),
    [
        ("llama", "LlamaForCausalLM", {"attentions": (13, 13)}),
        ("clip", "CLIPVisionModel", {"attentions": (17, 17)}),
        (
            "bart",
            "BartForConditionalGeneration",
            {"encoder_attentions": (13, 13), "decoder_attentions": (9, 9), "cross_attentions": (9, 13)},
        ),
    ],
)
def test_a_tiny_model_and_its_attention(family: str, name: str, kinds: dict[str, tuple[int, int]]) -> None:
    prepared = prepare(ModelClass(f"transformers.models.{family}.modeling_{family}", name))
    assert sum(parameter.numel() for parameter in prepared.model.parameters()) < 1_000_000
    eager = reference(prepared.model, prepared.inputs)
    assert {field: tuple(found[0].shape[1:]) for field, found in eager.returned.items()} == kinds
    assert all(len(found) == 2 for found in eager.returned.values())
    assert len(eager.softmaxes) == 2 * len(kinds)
    for found in eager.returned.values():
        for matrix in found:
            assert torch.allclose(matrix.sum(dim=-1), torch.ones(()))
            assert matrix.amax(dim=-1).mean() > 2 / matrix.shape[-1]  # far from uniform
