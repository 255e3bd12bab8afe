"""Models and matrices on a GPU give what they give on the CPU; skipped where there is none."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tiny import TEXT, bart, build, llama, plain, two_sided  # noqa: E402

import attnflow  # noqa: E402
from attnflow import Network, matrices  # noqa: E402


def layers(count: int = 4, n: int = 33) -> Any:
    scores = torch.randn(count, 5, n, n, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(dim=-1)


@pytest.mark.gpu
@pytest.mark.parametrize("calibration", [None, "excess"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_networks(calibration: Any, dtype: str) -> None:
    given = layers().to(getattr(torch, dtype))
    there = Network.decoder(given.cuda(), calibration=calibration)
    here = Network.decoder(given, calibration=calibration)
    for one, other in zip(there.links, here.links, strict=True):
        assert np.allclose(one.capacities, other.capacities, atol=1e-6)
    assert np.allclose(there.source_flows().values, here.source_flows().values, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("measure", ["attention", "alti", "attention_x_gradient", "value_norm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_captures(measure: str, dtype: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **size)).to(getattr(torch, dtype)).eval()
    ids = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(1))
    here = attnflow.capture.contributions(model, ids, measure=measure)
    there = attnflow.capture.contributions(model.cuda(), ids, measure=measure)
    limit = 1e-4 if dtype == "float32" else 0.1
    for one, other in zip(there.decoder, here.decoder, strict=True):
        assert one.is_cuda
        assert (one.cpu() - other).abs().max() <= limit


@pytest.mark.gpu
@pytest.mark.parametrize("measure", ["attention", "alti", "attention_x_gradient"])
@pytest.mark.parametrize("family", ["llama", "bart", "bloom"])
def test_explanations(family: str, measure: str) -> None:
    options: dict[str, Any] = {"measure": measure}
    if family == "bart":
        model, tokenizer, options["target"] = bart(), two_sided(), "a dog sat"
    else:
        size = {"hidden_size": 16, "n_layer": 3, "n_head": 4}
        model, tokenizer = llama() if family == "llama" else build("BloomForCausalLM", size, "BloomConfig"), plain()
        options["continuation"] = " over the hill"
    here = attnflow.explain(model, tokenizer, TEXT, **options)
    there = attnflow.explain(model.cuda(), tokenizer, TEXT, **options)
    assert there.tokens == here.tokens
    assert np.allclose(there.values, here.values, atol=1e-4)


# --- without one: the order of events, with stand-ins for streams -----------------------------------------------------


def test_each_matrix_travels_while_the_next_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def started(matrix: Any) -> Any:
        name = str(int(matrix[0, 0]))
        events.append(f"start {name}")

        def finish() -> Any:
            events.append(f"finish {name}")
            return matrices.host(matrix)

        return finish

    def computed() -> Any:
        for index in range(3):
            events.append(f"compute {index}")
            yield torch.full((2, 2), float(index))

    monkeypatch.setattr(matrices, "_transfer", started)
    arrived = [int(array[0, 0]) for array in matrices.carried(computed())]
    assert arrived == [0, 1, 2]
    assert events == [
        *("compute 0", "start 0", "compute 1", "start 1", "finish 0"),
        *("compute 2", "start 2", "finish 1", "finish 2"),
    ]


def test_a_transfer_waits_for_what_computes_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that are made of torch.cuda, on a tensor that says it is there."""
    calls: list[str] = []

    class Stream:
        def wait_stream(self, other: str) -> None:
            calls.append(f"wait for {other}")

    class Event:
        def record(self, stream: Any) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

    @contextmanager
    def inside(_: Any) -> Any:
        yield

    class OnGpu(torch.Tensor):
        @property
        def is_cuda(self) -> bool:
            return True

        def record_stream(self, stream: Any) -> None:
            calls.append("keep")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the current one")
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "device", inside)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **options: empty(*shape, **options))
    matrix = torch.rand(3, 3).as_subclass(OnGpu)
    finish = matrices._transfer(matrix)
    assert finish is not None
    assert calls == ["wait for the current one", "record", "keep"]
    assert np.array_equal(finish(), np.asarray(torch.Tensor(matrix)))
    assert calls[-1] == "synchronize"
    assert matrices._transfer(torch.rand(3, 3)) is None
    assert matrices._transfer(np.ones((3, 3))) is None
    assert "cupy" not in sys.modules
