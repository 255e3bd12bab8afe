"""A model is left exactly as it was found, whatever happens, and a capture costs no H x n x n memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import build, matrices

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.hooks import RemovableHandle  # noqa: E402
from transformers import AttentionInterface  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

from attnflow.capture import _hooks, contributions  # noqa: E402
from attnflow.capture.measures import ALTI  # noqa: E402
from attnflow.errors import CaptureError  # noqa: E402


def state(model: Any) -> dict[str, Any]:
    """Everything a capture might disturb."""
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        },
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "grad": {name: parameter.grad for name, parameter in model.named_parameters()},
        "weights": {name: (p.data_ptr(), p._version) for name, p in model.named_parameters()},
        "config": model.config.to_dict(),
        "implementation": model.config._attn_implementation,
        "output_attentions": model.config.output_attentions,
        "registry": (dict(ALL_ATTENTION_FUNCTIONS), dict(ALL_ATTENTION_FUNCTIONS._local_mapping)),
        "interface": dict(vars(AttentionInterface)),
        "grad_mode": torch.is_grad_enabled(),
    }


def unusual(family: str) -> Any:
    """A model in a state that is not the default in any respect."""
    model = build(family, "eager" if family in {"gemma2", "bloom", "deberta_v2"} else "sdpa")
    model.train()
    next(iter(model.children())).eval()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    if family in {"gemma2", "bloom"}:
        model.config.output_attentions = True
    next(model.modules()).register_forward_hook(lambda *_: None)
    return model


EVERY_PATH = [
    ("llama", "attention"),
    ("llama", "alti"),
    ("gemma2", "alti"),
    ("falcon", "attention"),
    ("bloom", "attention"),
]


@pytest.mark.parametrize(("family", "measure"), EVERY_PATH)
def test_restored_after_success(family: str, measure: str, ids: Any) -> None:
    model = unusual(family)
    before = state(model)
    first = contributions(model, ids, measure=measure)
    assert state(model) == before
    second = contributions(model.eval(), ids, measure=measure)
    for a, b in zip(matrices(first), matrices(second), strict=True):
        assert torch.equal(a, b)  # no dropout, though the model was training
        assert not a.requires_grad


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError, ValueError])
@pytest.mark.parametrize(("family", "measure"), EVERY_PATH)
def test_restored_after_an_exception_on_the_way(family: str, measure: str, raised: type, ids: Any) -> None:
    model = unusual(family)
    before = state(model)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise raised

    with pytest.raises(raised):
        contributions(model, ids, measure=measure, progress=interrupt)
    assert state(model) == before
    assert len(contributions(model, ids, measure=measure).layers) == 3


@pytest.mark.parametrize("asked", [False, True])
def test_what_transformers_collects_its_outputs_with(asked: bool, ids: Any) -> None:
    """It leaves hooks on a model that is asked for attentions: neither may they stay, nor come before ours."""
    options = {"d_model": 16, "ffn_dim": 24, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 32}
    model = transformers.XGLMForCausalLM(transformers.XGLMConfig(vocab_size=61, **options)).eval()
    if asked:
        with torch.no_grad():
            model(ids, output_hidden_states=True)
    before = state(model)
    first, second = (matrices(contributions(model, ids)) for _ in range(2))
    assert state(model) == before
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions
    for one, other, expected in zip(first, second, attentions, strict=True):
        assert torch.equal(one, other)
        assert (one - expected[0].mean(dim=0)).abs().max() <= 1e-6


@pytest.mark.parametrize("what", ["register", "remove"])
@pytest.mark.parametrize(("family", "measure"), EVERY_PATH)
def test_ctrl_c_while_hooks_come_and_go(
    family: str, measure: str, what: str, ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that stayed would be in the way of every later run of the model."""
    model = unusual(family)
    before = state(model)

    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            made = original(*args, **options)
            signal.raise_signal(signal.SIGINT)
            return made

        return run

    kinds = {"register": (torch.nn.Module, "register_forward_hook", "register_forward_pre_hook")}
    owner, *names = kinds.get(what, (RemovableHandle, "remove"))
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(owner, name, interrupted(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            contributions(model, ids, measure=measure)
    assert state(model) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_restored_after_the_model_itself_fails(ids: Any) -> None:
    model = build("llama")
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(3, 3)
    before = state(model)
    with pytest.raises(RuntimeError):
        contributions(model, ids)
    assert state(model) == before


def test_other_models_run_untouched_meanwhile(ids: Any) -> None:
    """The listener is process-wide for a moment; only the model that is captured, in its own thread, is heard."""
    model, other = build("llama"), build("gpt2")
    with torch.no_grad():
        expected = {"other": other(ids).logits, "same": model(ids).logits}
    seen: dict[str, Any] = {}

    def elsewhere(done: int, total: int) -> None:
        with torch.no_grad():
            seen["other"] = other(ids).logits
        nested = contributions(other, ids)  # even a capture inside a capture
        seen["nested"] = len(nested.layers)
        thread = threading.Thread(target=lambda: seen.update(same=_forward(model, ids)))
        thread.start()
        thread.join()

    result = contributions(model, ids, progress=elsewhere)
    assert len(result.layers) == 3
    assert seen["nested"] == 3
    assert torch.equal(seen["other"], expected["other"])
    assert torch.equal(seen["same"], expected["same"])


@pytest.mark.parametrize(("family", "measure"), EVERY_PATH)
def test_the_same_model_runs_elsewhere_meanwhile(family: str, measure: str, ids: Any) -> None:
    model = build(family)
    alone, expected = _forward(model, ids), matrices(contributions(model, ids, measure=measure))
    seen: list[Any] = []

    def elsewhere(module: Any, *_: Any) -> None:
        if not seen:
            seen.append(None)  # once
            thread = threading.Thread(target=lambda: seen.append(_forward(model, ids)))
            thread.start()
            thread.join()

    inner = [module for name, module in model.named_modules() if name.endswith("1.mlp")]
    handle = inner[0].register_forward_pre_hook(elsewhere)
    got = matrices(contributions(model, ids, measure=measure))
    handle.remove()
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert (seen[1] - alone).abs().max() <= 1e-4


def _forward(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("families", [("llama", "gpt2"), ("llama",), ("bloom",)])
def test_two_threads_take_turns(families: Any, ids: Any) -> None:
    models = [build(family).train() for family in families]
    models = [models[0], models[-1]]
    expected = [matrices(contributions(model, ids))[-1] for model in models]
    results: dict[int, Any] = {}

    def run(index: int) -> None:
        for _ in range(5):
            results[index] = matrices(contributions(models[index], ids))[-1]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        assert torch.equal(results[index], expected[index])
        assert all(module.training for module in models[index].modules())


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.untyped_storage().nbytes() // item.element_size())
        return result


@pytest.mark.parametrize(
    ("family", "implementation", "measure"),
    [
        ("llama", "sdpa", "attention"),
        ("llama", "eager", "attention"),
        ("llama", "sdpa", "alti"),
        ("gemma2", "eager", "alti"),
        ("gpt_oss", "eager", "attention"),
        ("bert", "sdpa", "attention"),
    ],
)
def test_no_tensor_of_heads_times_positions_squared(
    family: str, implementation: str, measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 64
    monkeypatch.setattr(ALTI, "rows", 8)
    monkeypatch.setattr(ALTI, "tile_bytes", 8192)
    model = build(family, implementation)
    with Largest() as largest:
        contributions(model, torch.arange(n)[None] % 50 + 5, measure=measure, block_bytes=4096)
    assert n * n <= largest.elements < model.config.num_attention_heads * n * n


def test_hooks_keep_one_layer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the interface a layer of (H, n, n) exists, but the model must not collect them."""
    layers: list[weakref.ref[Any]] = []

    recognise = _hooks._is_attention

    def watch(item: Any, batch: int) -> bool:
        if recognise(item, batch):
            layers.append(weakref.ref(item))
        return recognise(item, batch)

    monkeypatch.setattr(_hooks, "_is_attention", watch)
    alive: list[int] = []
    contributions(
        build("bloom"), [5, 6, 7], progress=lambda *_: alive.append(sum(layer() is not None for layer in layers))
    )
    assert alive == [1, 1, 1]


def in_a_fresh_interpreter(code: str) -> str:
    """What the code prints there; it imports this folder's `families` and the package as the tests do."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "python"), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def test_a_compiled_model_is_captured_too() -> None:
    """Apart from the other tests: torch's compiler keys what it knows by the identity of objects, theirs included."""
    code = (
        "import torch\n"
        "from families import build, matrices\n"
        "from attnflow.capture import contributions\n"
        "ids = torch.arange(5, 28)[None]\n"
        "model = build('gpt2')\n"
        "expected = matrices(contributions(model, ids))\n"
        "compiled = torch.compile(model, backend='eager')\n"
        "with torch.no_grad():\n"
        "    compiled(ids)\n"
        "got = matrices(contributions(compiled, ids))\n"
        "print(len(got), all(torch.equal(a, b) for a, b in zip(got, expected, strict=True)))\n"
    )
    layers = build("gpt2").config.n_layer
    assert in_a_fresh_interpreter(code) == f"{layers} True"


def test_missing_torch_names_the_extra() -> None:
    """In a fresh interpreter whose torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from attnflow.errors import MissingDependencyError\n"
        "try:\n    import attnflow.capture\n"
        "except MissingDependencyError as e:\n    print('named' if 'attnflow[torch]' in str(e) else e)\n"
    )
    assert in_a_fresh_interpreter(code) == "named"


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A model that cheats in one of the ways a capture must notice."""

    def make(how: str) -> Any:
        model = build("gpt2")
        block = model.transformer.h[1]
        if how == "skips a layer":
            original = block.attn.forward
            block.attn.forward = lambda hidden, **_: (torch.zeros_like(hidden), None) if original else None
        elif how == "runs a layer twice":
            original = block.forward
            block.forward = lambda hidden, *a, **k: original(original(hidden, *a, **k), *a, **k)
        elif how == "runs in another order":
            first, second = model.transformer.h[0].forward, model.transformer.h[1].forward
            model.transformer.h[0].forward, model.transformer.h[1].forward = second, first
        return model

    return make


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("skips a layer", r"transformer\.h\.1"),
        ("runs a layer twice", r"transformer\.h\.1\.attn.*2 times"),
        ("runs in another order", r"order \[1, 0, 2\]"),
    ],
)
def test_missing_and_repeated_layers_are_noticed(how: str, named: str, sabotage: Any, ids: Any) -> None:
    with pytest.raises(CaptureError, match=named):
        contributions(sabotage(how), ids)


@pytest.mark.parametrize("how", ["mask", "scale", "temperature", "window"])
def test_an_attention_that_is_not_what_it_seems_is_noticed(how: str, ids: Any) -> None:
    """A custom attention function that does not do what its arguments say."""

    def custom(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        n = query.shape[2]
        heads = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(heads, dim=1), value.repeat_interleave(heads, dim=1)
        scores = query @ key.transpose(2, 3) * options["scaling"]
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
        if how == "mask":
            scores[..., 5, 2] = -torch.inf
        elif how == "scale":
            scores = scores * 1.1
        elif how == "temperature":
            scores = torch.log_softmax(scores, dim=-1) * 1.05
        elif how == "window":
            scores = scores.masked_fill(torch.ones(n, n).tril(-9).bool(), -torch.inf)
        return (scores.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None

    model = build("llama")
    AttentionInterface.register("attnflow_test", custom)
    try:
        model.config._attn_implementation = "attnflow_test"
        with pytest.raises(CaptureError, match=r"model\.layers\.0\.self_attn.*attn_implementation"):
            contributions(model, ids)
    finally:
        del AttentionInterface._global_mapping["attnflow_test"]
