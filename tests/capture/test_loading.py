"""Models as they are loaded: in half precision, quantised, offloaded, compiled, checkpointed, adapted, sharing.

Each works as the plain model does, or is refused with a message that says what to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from families import DECODERS, ENCODERS, GROUPED, HOOKED, build, build_encoder_decoder, implemented, make, registered
from test_state import in_a_fresh_interpreter, state

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402

from attnflow.capture import contributions  # noqa: E402
from attnflow.capture.measures import MEASURES  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

PAIRS = ("bart", "t5")
# Decoders, encoders and both; norms before, behind and around the attention; sinks and capped scores.
KINDS = ["llama", "gpt2", "gemma2", "gpt_oss", "opt_post_norm", "bert", "modernbert", *PAIRS]


def loaded(family: str, implementation: str | None = None, dtype: Any = None) -> Any:
    return (build_encoder_decoder if family in PAIRS else build)(family, implementation, dtype)


def objective(outputs: Any) -> Any:
    return outputs.logits[:, -1, 7].sum() if "logits" in outputs else outputs[0][:, -1, :5].sum()


def capture(model: Any, family: str, ids: Any, measure: str = "attention") -> Any:
    inputs = {"input_ids": ids[:, :11], "decoder_input_ids": ids[:, 11:18]} if family in PAIRS else ids
    return contributions(model, inputs, measure=measure, objective=objective)


def furthest(one: Any, other: Any) -> float:
    """The largest difference between the matrices of two captures of as many layers."""
    assert [layer.stack for layer in one.layers] == [layer.stack for layer in other.layers]
    return max(float((a.matrix - b.matrix).abs().max()) for a, b in zip(one.layers, other.layers, strict=True))


def row_sums(result: Any) -> Any:
    return torch.cat([(m.matrix.sum(dim=-1) + (0 if m.kept is None else m.kept)).flatten() for m in result.layers])


def replaced(model: Any, wrap: Callable[[Any], Any], kind: Any = nn.Linear) -> Any:
    """The model with another module in the place of every linear one but its head."""
    for name, module in list(model.named_modules()):
        if isinstance(module, kind) and "head" not in name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, wrap(module))
    return model


# --- precision -------------------------------------------------------------------------------------------------------

# What rounding makes of three layers: of the first layer's attention, and of any measure of the last.
ROUNDING = {"float16": (2e-3, 0.05), "bfloat16": (0.02, 0.25), "float64": (2e-6, 1e-5)}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("family", KINDS)
def test_other_precisions(family: str, dtype: str, measure: str, ids: Any) -> None:
    if (family, dtype) == ("gpt_oss", "float64"):
        pytest.skip("torch has no grouped products of float64, which its experts need")
    expected = capture(loaded(family), family, ids, measure)
    got = capture(loaded(family, dtype=getattr(torch, dtype)), family, ids, measure)
    first, last = ROUNDING[dtype]
    if "gradient" in measure:  # rows with next to nothing positive are mostly rounding
        last = max(last, 1.0) if family == "t5" else last
    assert furthest(got, expected) <= last
    assert all(layer.matrix.dtype == torch.float32 for layer in got.layers)
    assert got.logits is None or got.logits.dtype == torch.float32
    if measure == "attention":
        assert (got.layers[0].matrix - expected.layers[0].matrix).abs().max() <= 4 * first
    if "gradient" in measure:
        sums = row_sums(got)
        assert (((sums - 1).abs() <= 1e-5) | (sums == 0)).all()
    elif (family, measure) != ("gpt_oss", "attention"):
        assert (row_sums(got) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "bert", "bart"])
def test_scores_of_half_precision_are_not_rounded(family: str, dtype: str, ids: Any) -> None:
    """Against a softmax in float64 of the queries and keys that the model has rounded itself."""
    expected: list[Any] = []

    def recording(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        q, k = query.double(), key.double().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = q @ k.transpose(2, 3) * options["scaling"]
        causal = options.get("is_causal")
        if mask is None and q.shape[2] > 1 and (module.is_causal if causal is None else causal):
            mask = torch.ones(scores.shape[-2:]).tril().bool()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        expected.append(scores.softmax(dim=-1).mean(dim=1))
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    model = loaded(family, dtype=getattr(torch, dtype))
    with registered(recording, sdpa_mask, "attnflow_recording") as name:
        got = capture(implemented(model, name), family, ids)
    both = zip(got.decoder, got.cross, strict=True) if got.cross else ((matrix,) for matrix in got.decoder)
    for matrix, wanted in zip([*got.encoder, *(m for layer in both for m in layer)], expected, strict=True):
        assert (matrix - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bert", "gpt_neox", "gpt_oss", *PAIRS])
def test_autocast_is_the_models_alone(family: str, measure: str, dtype: str, ids: Any) -> None:
    expected = capture(loaded(family), family, ids, measure)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        got = capture(loaded(family), family, ids, measure)
        assert torch.is_autocast_enabled("cpu")
    assert furthest(got, expected) <= ROUNDING[dtype][1]
    if "gradient" not in measure and (family, measure) != ("gpt_oss", "attention"):
        assert (row_sums(got) - 1).abs().max() <= 1e-5
    assert got.logits is None or got.logits.dtype == torch.float32


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "bart"])
def test_inference_mode(family: str, measure: str, ids: Any) -> None:
    model = loaded(family)
    with torch.inference_mode():
        got = capture(model, family, ids.clone(), measure)
        assert torch.is_inference_mode_enabled()
    assert furthest(got, capture(model, family, ids, measure)) <= 1e-6


# --- quantised and adapted -------------------------------------------------------------------------------------------


class Int8(nn.Module):
    """A linear module that keeps eight bits of each weight and a scale a row."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def matrix(self, dtype: Any) -> Any:
        return self.weight.to(dtype) * self.scale.to(dtype)

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.matrix(x.dtype), self.bias)

    def plain(self) -> Any:
        return _linear(self.matrix(torch.float32), self.bias)


class Rounding(Int8):
    """One that rounds what it reads to eight bits as well."""

    def forward(self, x: Any) -> Any:
        scale = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-9) / 127
        return super().forward((x / scale).round() * scale)


class LowRank(nn.Module):
    """A linear module with an update beside it; its weight is what it was, as in PEFT."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.base = linear
        generator = torch.Generator().manual_seed(5)
        rows, columns = linear.weight.shape
        self.a = nn.Linear(columns, 4, bias=False)
        self.b = nn.Linear(4, rows, bias=False)
        with torch.no_grad():
            self.a.weight.copy_(0.3 * torch.randn(4, columns, generator=generator))
            self.b.weight.copy_(0.3 * torch.randn(rows, 4, generator=generator))

    @property
    def weight(self) -> Any:
        return self.base.weight

    def forward(self, x: Any) -> Any:
        return self.base(x) + self.b(self.a(x))

    def plain(self) -> Any:
        return _linear(self.base.weight + self.b.weight @ self.a.weight, self.base.bias)


def _linear(weight: Any, bias: Any) -> Any:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight, linear.bias = nn.Parameter(weight.detach().clone()), bias
    return linear


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", [Int8, LowRank])
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt_post_norm", "gpt_neox", "bert", *PAIRS])
def test_linear_modules_of_another_kind_equal_plain_ones(family: str, kind: Any, measure: str, ids: Any) -> None:
    model = replaced(loaded(family), kind)
    plain = replaced(copy.deepcopy(model), lambda module: module.plain(), kind)
    assert furthest(capture(model, family, ids, measure), capture(plain, family, ids, measure)) <= 5e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [Int8, LowRank])
@pytest.mark.parametrize("family", ["llama", "bert", "bart"])
def test_linear_modules_of_another_kind_in_half_precision(family: str, kind: Any, dtype: str, ids: Any) -> None:
    expected = capture(replaced(loaded(family), kind), family, ids, "alti")
    model = replaced(loaded(family), kind).to(getattr(torch, dtype))
    assert furthest(capture(model, family, ids, "alti"), expected) <= ROUNDING[dtype][1]
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        got = capture(replaced(loaded(family), kind), family, ids, "alti")
    assert furthest(got, expected) <= ROUNDING[dtype][1]


@pytest.mark.parametrize("measure", [name for name in MEASURES if "gradient" not in name])
@pytest.mark.parametrize("family", ["llama", "gemma2", "bert", "bart"])
def test_modules_that_round_what_they_read(family: str, measure: str, ids: Any) -> None:
    got = capture(replaced(loaded(family), Rounding), family, ids, measure)
    assert furthest(got, capture(replaced(loaded(family), Int8), family, ids, measure)) <= 0.15


def test_a_projection_that_is_not_linear_is_refused(ids: Any) -> None:
    model = build("llama")
    model.model.layers[1].self_attn.o_proj.register_forward_hook(lambda module, args, output: output.sin())
    with pytest.raises(CaptureError, match=r"model\.layers\.1.*Linear is not linear.*measure='attention'"):
        contributions(model, ids, measure="alti")
    assert len(contributions(model, ids).layers) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_bitsandbytes(family: str, bits: int, measure: str, ids: Any) -> None:
    """Its four bits come in blocks of 64, wider than the other tests' models."""
    quantised = pytest.importorskip("bitsandbytes").nn

    def wrap(linear: Any) -> Any:
        shape = linear.in_features, linear.out_features, linear.bias is not None
        module = (
            quantised.Linear8bitLt(*shape, has_fp16_weights=False, threshold=6.0)
            if bits == 8
            else quantised.Linear4bit(*shape, compute_dtype=torch.float32, quant_type="nf4")
        )
        module.load_state_dict(linear.state_dict())
        return module.to("cpu")

    model_class, config_class, options = {**DECODERS, **ENCODERS}[family]
    wide = {**options, "hidden_size": 128, "intermediate_size": 128}
    models = [replaced(make(model_class, config_class, wide, name), wrap).eval() for name in ("sdpa", "eager")]
    got = capture(models[0], family, ids, measure)
    assert furthest(got, capture(models[1], family, ids, measure)) <= 1e-4
    if measure == "attention":
        with torch.no_grad():
            weights = models[1](ids, attention_mask=torch.ones_like(ids), output_attentions=True).attentions
        for layer, wanted in zip(got.layers, weights, strict=True):
            assert (layer.matrix - wanted.mean(dim=1)).abs().max() <= 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("measure", ["attention", "alti", "attention_gradient", "value_norm"])
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["q_proj", "v_proj", "o_proj"]),
        ("gpt2", ["c_attn", "c_proj"]),
        ("bert", ["query", "dense"]),
        ("bart", ["q_proj", "out_proj"]),
    ],
)
def test_peft(family: str, targets: list[str], measure: str, ids: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    options = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(loaded(family), options).eval()
    got = capture(model, family, ids, measure)
    assert furthest(got, capture(copy.deepcopy(model).merge_and_unload(), family, ids, measure)) <= 1e-5


# --- offloaded -------------------------------------------------------------------------------------------------------


def offloaded(model: Any, how: str, folder: Path) -> Any:
    accelerate = pytest.importorskip("accelerate")
    if how == "cpu":
        return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    if how == "disk":
        return accelerate.disk_offload(model, folder, execution_device=torch.device("cpu"), offload_buffers=True)
    # Every other layer on the disk, all else where it is.
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    places = {}
    for name in model.state_dict():
        stack = min((stack for stack in lists if name.startswith(f"{stack}.")), key=len, default=None)
        index = None if stack is None else name.removeprefix(f"{stack}.").partition(".")[0]
        places[name if index is None else f"{stack}.{index}"] = "disk" if index in ("0", "2") else "cpu"
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


def flags(model: Any) -> dict[str, Any]:
    return {name: (p.device, p.requires_grad, p.dtype, p.grad) for name, p in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")  # they are buffers
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("how", ["cpu", "disk", "dispatched"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "opt_post_norm", "bert", *PAIRS])
def test_offloaded_models(family: str, how: str, measure: str, ids: Any, tmp_path: Path) -> None:
    expected = capture(loaded(family), family, ids, measure)
    model = offloaded(loaded(family), how, tmp_path)
    assert any(parameter.is_meta for parameter in model.parameters())
    before = flags(model)
    for _ in range(2):
        got = capture(model, family, ids, measure)
        assert furthest(got, expected) <= 1e-6
        assert got.layers[0].matrix.device.type == "cpu"
        assert flags(model) == before


def test_offloaded_models_without_the_interface_or_with_scaled_channels(ids: Any, tmp_path: Path) -> None:
    model = offloaded(build("bloom"), "disk", tmp_path)
    assert furthest(contributions(model, ids), contributions(build("bloom"), ids)) == 0
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
    pixels = {"pixel_values": torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    for measure in ("alti", "value_norm_residual"):
        plain, away = (make("Dinov2Model", "Dinov2Config", sizes) for _ in range(2))
        got = contributions(offloaded(away, "cpu", tmp_path), pixels, measure=measure)
        assert furthest(got, contributions(plain, pixels, measure=measure)) <= 1e-6


def test_inputs_go_where_the_first_parameter_is_that_is_anywhere(ids: Any) -> None:
    """A part that is never run may stay on the meta device."""
    model = build("llama")
    model._modules = {"spare": nn.Linear(3, 3, device="meta"), **model._modules}
    assert next(model.parameters()).is_meta
    assert contributions(model, ids).layers[0].matrix.device.type == "cpu"


# --- compiled and checkpointed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_compiled_models(family: str) -> None:
    """As a whole, in place and layer by layer; before and after they have run."""
    code = (
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from test_loading import capture, furthest, loaded\n"
        "ids = torch.arange(5, 28)[None]\n"
        f"family = {family!r}\n"
        "both = {'input_ids': ids[:, :11], 'decoder_input_ids': ids[:, 11:18]}\n"
        "inputs = both if family == 'bart' else {'input_ids': ids}\n"
        "worst = 0.0\n"
        "for measure in ('attention', 'alti', 'attention_gradient'):\n"
        "    expected = capture(loaded(family), family, ids, measure)\n"
        "    model = loaded(family)\n"
        "    compiled = torch.compile(model, backend='eager')\n"
        "    worst = max(worst, furthest(capture(compiled, family, ids, measure), expected))\n"
        "    with torch.no_grad():\n"
        "        wanted, got = model(**inputs).logits, compiled(**inputs).logits\n"
        "    assert (got - wanted).abs().max() <= 1e-5\n"
        "    worst = max(worst, furthest(capture(compiled, family, ids, measure), expected))\n"
        "    for module in model.modules():\n"
        "        if type(module).__name__.endswith('Layer'):\n"
        "            module.compile(backend='eager')\n"
        "    with torch.no_grad():\n"
        "        model(**inputs)\n"
        "    worst = max(worst, furthest(capture(model, family, ids, measure), expected))\n"
        "print(worst <= 1e-6)\n"
    )
    assert in_a_fresh_interpreter(code) == "True"


@pytest.mark.filterwarnings("ignore:.*checkpointing.*:FutureWarning")
@pytest.mark.parametrize("measure", ["attention", "alti", "attention_gradient"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["llama", "bert", *PAIRS])
def test_gradient_checkpointing(family: str, reentrant: bool, training: bool, measure: str, ids: Any) -> None:
    model = loaded(family)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train(training)
    before = state(model)
    assert furthest(capture(model, family, ids, measure), capture(loaded(family), family, ids, measure)) == 0
    assert state(model) == before
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


class Checkpointed(nn.Module):
    """A layer that is checkpointed whatever its mode."""

    def __init__(self, layer: Any, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)

    def forward(self, *args: Any, **options: Any) -> Any:
        return checkpoint(partial(self.layer, **options), *args, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_are_always_checkpointed(reentrant: bool, implementation: str, ids: Any) -> None:
    """They run twice where there is a way back; the first run counts."""
    for measure in ("attention", "alti", "attention_gradient"):
        model = build("llama", implementation)
        for index, layer in enumerate(model.model.layers):
            model.model.layers[index] = Checkpointed(layer, reentrant)
        if reentrant and "gradient" in measure:
            with pytest.raises(CaptureError, match=r"model\.layers\.0.*without gradients.*use_reentrant=True"):
                capture(model, "llama", ids, measure)
        else:
            expected = capture(build("llama", implementation), "llama", ids, measure)
            assert furthest(capture(model, "llama", ids, measure), expected) <= 1e-6


# --- shared, tied, frozen, hooked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["attention", "alti"])
@pytest.mark.parametrize("family", ["llama", "gptj", "mpnet"])
def test_models_that_share_a_configuration(family: str, measure: str, ids: Any) -> None:
    model_class, config_class, options = {**DECODERS, **HOOKED}[family]
    config = getattr(transformers, config_class)(**options)
    one, other = (getattr(transformers, model_class)(config).eval() for _ in range(2))
    assert one.config is other.config
    with torch.no_grad():
        expected = other(ids)[0]
    before, seen = state(other), []

    def meanwhile(done: int, total: int) -> None:
        with torch.no_grad():
            seen.append(float((other(ids)[0] - expected).abs().max()))

    contributions(one, ids, measure=measure, progress=meanwhile)
    assert len(seen) == 3
    assert max(seen) <= 1e-5  # the eager configuration of a moment may round otherwise
    assert state(other) == before
    with torch.no_grad():
        assert torch.equal(other(ids)[0], expected)


@pytest.mark.parametrize("measure", ["attention", "alti", "attention_gradient", "value_norm"])
@pytest.mark.parametrize("family", ["llama", "bert", "bart"])
def test_frozen_parts_and_hooks_of_others(family: str, measure: str, ids: Any) -> None:
    expected = capture(loaded(family), family, ids, measure)
    model = loaded(family)
    ran: list[Any] = []
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 == 0)
    for module in model.modules():
        module.register_forward_hook(lambda *_: ran.append(0))
        module.register_forward_pre_hook(lambda *_: None)
    before = state(model)
    assert furthest(capture(model, family, ids, measure), expected) == 0
    assert state(model) == before
    assert ran


def test_hooks_that_change_the_stream(ids: Any) -> None:
    """Attention is what it then is; a measure that follows the stream refuses the layer that is steered."""
    model = build("llama")
    model.model.layers[1].register_forward_hook(lambda module, args, output: output + 0.5)
    contributions(model, ids, measure="attention_gradient")
    with torch.no_grad():
        implemented(model, "eager")
        weights = model(ids, output_attentions=True).attentions
    for layer, wanted in zip(contributions(model, ids).layers, weights, strict=True):
        assert (layer.matrix - wanted.mean(dim=1)).abs().max() <= 1e-6
    with pytest.raises(CaptureError, match=r"model\.layers\.1.*measure='attention'"):
        contributions(model, ids, measure="alti")


@pytest.mark.parametrize("how", ["", "cpu"])
def test_tied_weights(how: str, ids: Any, tmp_path: Path) -> None:
    sizes = {**GROUPED, "tie_word_embeddings": True}
    model = make("LlamaForCausalLM", "LlamaConfig", sizes)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    if how:
        model = offloaded(model, how, tmp_path)
    before = flags(model)
    got = contributions(model, ids, measure="attention_gradient")
    plain = make("LlamaForCausalLM", "LlamaConfig", sizes)
    assert furthest(got, contributions(plain, ids, measure="attention_gradient")) == 0
    assert flags(model) == before
    assert how or model.lm_head.weight is model.model.embed_tokens.weight


def test_a_wrapper_without_a_configuration_is_refused_by_name(ids: Any) -> None:
    wrapped = nn.DataParallel(build("llama"))
    with pytest.raises(InvalidArgumentError, match=r"\.config, got torch\.nn\.parallel.*DataParallel"):
        contributions(wrapped, ids)
    assert len(contributions(wrapped.module, ids).layers) == 3
