"""What other libraries return, as stand-ins of the same shape and, where they are installed, themselves."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from stacks import attention, close, every_flow

from attnflow import Network, adapters
from attnflow.errors import AttnflowError, InvalidArgumentError, InvalidCapacityError

torch = pytest.importorskip("torch")


def layers(causal=False, n_layers=3, n_texts=1, n=4, seed=0):
    """(L, B, 2, n, n), a different matrix each."""
    drawn = np.random.default_rng(seed).random((n_layers, n_texts, 2, n, n))
    drawn = np.tril(drawn) if causal else drawn
    return torch.from_numpy(drawn / drawn.sum(axis=-1, keepdims=True))


def parts(seed=0):
    return [torch.from_numpy(part)[:, None] for part in attention(2, 2, seed=seed)]


def same(stacks, network):
    """The same flows between all positions, and so the same constructor."""
    close(every_flow(stacks.network()), every_flow(network))


# ---- what all return -------------------------------------------------------------------------------------------------


def test_the_network_takes_the_options_of_its_constructor():
    causal = layers(causal=True, n_texts=2)
    stacks = adapters.from_transformers(tuple(causal))
    made = stacks.network(residual=0, heads="max", calibration="excess", batch=1, storage="triangle")
    wanted = Network.decoder(causal, residual=0, heads="max", calibration="excess", batch=1)
    close(every_flow(made), every_flow(wanted))
    with pytest.raises(InvalidCapacityError, match=r"a batch of 2 texts.*batch=0"):
        stacks.network()
    encoder, decoder, cross = parts()
    both = adapters.Stacks(tuple(encoder), tuple(decoder), tuple(cross))
    assert both.kind == "encoder-decoder"
    wanted = Network.encoder_decoder(encoder, decoder, cross, merge="single")
    close(every_flow(both.network(merge="single")), every_flow(wanted))
    assert repr(both) == "Stacks(encoder=2 layers, decoder=2 layers, cross=2 layers)"


def test_stacks_are_frozen_and_hold_what_was_given():
    given = tuple(layers())
    stacks = adapters.from_transformers(given)
    assert all(kept is layer for kept, layer in zip(stacks.encoder, given, strict=True))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stacks.encoder = ()


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_a_decoder_is_told_by_what_it_does(convert):
    for causal, kind in ((True, "decoder"), (False, "encoder")):
        given = [convert(layer) for layer in layers(causal)]
        stacks = adapters.from_nnsight(given)
        assert stacks.kind == kind
        same(stacks, getattr(Network, kind)(given))
    one_ahead = layers(causal=True, n_texts=2)
    one_ahead[2, 1, 1, 0, 3] = 1e-30
    assert adapters.from_nnsight(list(one_ahead)).kind == "encoder"


def test_what_a_single_stack_is_may_be_said():
    causal = tuple(layers(causal=True))
    cache = {f"blocks.{index}.attn.hook_pattern": layer for index, layer in enumerate(causal)}
    for read, given in ((adapters.from_transformers, causal), (adapters.from_nnsight, causal)):
        assert read(given, stack="encoder").kind == "encoder"
    assert adapters.from_transformer_lens(cache, stack="encoder").kind == "encoder"
    with pytest.raises(InvalidArgumentError, match="stack='cross' is unknown: choose None"):
        adapters.from_transformers(causal, stack="cross")
    with pytest.raises(InvalidArgumentError, match=r"stack='decoder' beside dict, which says itself .*: encoder"):
        adapters.from_transformers({"encoder_attentions": causal}, stack="decoder")


def test_adapters_import_nothing_of_the_libraries():
    code = (
        "import sys, attnflow; attnflow.adapters.from_transformers, attnflow.adapters.from_nnsight;"
        "print({'torch', 'transformers', 'transformer_lens', 'nnsight', 'jax'} & set(sys.modules))"
    )
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert made.strip() == "set()"


# ---- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_one_stack_of_transformers(causal):
    given = layers(causal)
    wanted = (Network.decoder if causal else Network.encoder)(given)
    hidden = tuple(torch.zeros(1, 4, 8) for _ in range(4))
    for outputs in (
        {"logits": hidden[0], "hidden_states": hidden, "attentions": tuple(given), "cross_attentions": ()},
        SimpleNamespace(logits=hidden[0], attentions=tuple(given), cross_attentions=None),
        tuple(given),
        list(given.numpy()),
        (hidden[0], hidden, tuple(given)),
        {"attentions": given},
    ):
        same(adapters.from_transformers(outputs), wanted)


def test_two_stacks_of_transformers():
    encoder, decoder, cross = map(tuple, parts())
    wanted = Network.encoder_decoder(encoder, decoder, cross)
    named = {"encoder_attentions": encoder, "decoder_attentions": decoder, "cross_attentions": cross}
    hidden = torch.zeros(1, 4, 8)
    for outputs in (
        named,
        SimpleNamespace(logits=hidden, **named),
        (hidden, decoder, cross, hidden, encoder),
        {"encoder_attentions": encoder, "attentions": decoder, "cross_attentions": cross},
    ):
        same(adapters.from_transformers(outputs), wanted)
    assert adapters.from_transformers({"encoder_attentions": encoder}).kind == "encoder"


STEPS = ((torch.ones(1, 2, 4, 4),) * 3, (torch.ones(1, 2, 1, 5),) * 3)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"logits": 1, "attentions": None}, 'holds no attentions: load the model with attn_implementation="eager"'),
        ({"logits": 1, "attentions": ()}, "dict holds no attentions: .* It holds logits, attentions"),
        (SimpleNamespace(), "SimpleNamespace holds no attentions"),
        (None, "NoneType holds no attentions"),
        ((), "tuple of 0 entries holds no attentions"),
        ((torch.zeros(1, 4, 8),), "tuple of 1 entries holds no attentions"),
        ({"attentions": (torch.ones(1, 2, 3, 3), None)}, "layer 1 of dict.attentions is None"),
        ((torch.ones(1, 2, 3, 3), None), "layer 1 of tuple is None"),
        ({"attentions": STEPS}, r"dict.attentions holds a tuple of layers a step, as generate\(\) returns them"),
        (STEPS, r"tuple holds a tuple of layers a step, as generate\(\) returns them. Run the model once more"),
        ({"decoder_attentions": STEPS, "cross_attentions": STEPS}, "dict.decoder_attentions holds a tuple of layers"),
        ((torch.zeros(1), (torch.ones(1, 2, 3, 3),), (torch.ones(1, 2, 3, 3),)), "2 tuples of attentions.*return_dict"),
        (
            {"attentions": tuple(layers(True)), "cross_attentions": tuple(layers())},
            "dict holds attention of decoder and cross: a network is of",
        ),
        (
            {"encoder_attentions": tuple(layers()), "decoder_attentions": tuple(layers(True))},
            "dict holds attention of encoder and decoder",
        ),
    ],
)
def test_outputs_that_are_refused(outputs, message):
    with pytest.raises(InvalidArgumentError, match=message):
        adapters.from_transformers(outputs)


def test_real_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 20, "n_embd": 8, "n_layer": 3, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(**size, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    outputs = model(ids, output_attentions=True)
    wanted = every_flow(Network.decoder(outputs.attentions))
    close(every_flow(adapters.from_transformers(outputs).network()), wanted)
    as_tuple = model(ids, output_attentions=True, return_dict=False, use_cache=False)
    close(every_flow(adapters.from_transformers(as_tuple).network()), wanted)
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    options |= {"output_attentions": True, "return_dict_in_generate": True}
    with pytest.raises(InvalidArgumentError, match=r"as generate\(\) returns them"):
        adapters.from_transformers(model.generate(ids, attention_mask=torch.ones_like(ids), **options))
    with pytest.raises(InvalidArgumentError, match="holds no attentions"):
        adapters.from_transformers(model(ids))
    two = transformers.T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=3, num_decoder_layers=2, num_heads=2,
        attn_implementation="eager",
    )  # fmt: skip
    seq2seq = transformers.T5ForConditionalGeneration(two).eval()
    call = {"input_ids": ids, "decoder_input_ids": ids[:, :2], "output_attentions": True}
    outputs = seq2seq(**call)
    stacks = adapters.from_transformers(outputs)
    assert repr(stacks) == "Stacks(encoder=3 layers, decoder=2 layers, cross=2 layers)"
    as_tuple = adapters.from_transformers(seq2seq(**call, return_dict=False, use_cache=False))
    close(every_flow(as_tuple.network()), every_flow(stacks.network()))


# ---- TransformerLens -------------------------------------------------------------------------------------------------


class ActivationCache:
    """As TransformerLens': no mapping to Python, and with the model it was made by."""

    def __init__(self, entries, n_layers=None):
        self.cache_dict = entries
        self.model = SimpleNamespace(cfg=SimpleNamespace(n_layers=n_layers))

    def keys(self):
        return self.cache_dict.keys()

    def __iter__(self):
        return iter(self.cache_dict)

    def __getitem__(self, key):
        return self.cache_dict[key]


def blocks(given, prefix="blocks", name="attn"):
    return {f"{prefix}.{index}.{name}.hook_pattern": layer for index, layer in enumerate(given)}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [dict, ActivationCache, lambda entries: ActivationCache(entries, 12)])
def test_caches_are_sorted_by_number(causal, kind):
    given = layers(causal, n_layers=12)
    entries = {"hook_embed": torch.zeros(1, 4, 8), "blocks.0.attn.hook_attn_scores": given[0] - 9}
    entries |= dict(sorted(blocks(given).items()))  # 0, 1, 10, 11, 2, ...
    wanted = (Network.decoder if causal else Network.encoder)(given)
    same(adapters.from_transformer_lens(kind(entries)), wanted)
    without_batch = {key: value[0] for key, value in entries.items()}
    same(adapters.from_transformer_lens(kind(without_batch)), wanted)


@pytest.mark.parametrize(
    ("first", "second", "own"), [("encoder", "decoder", "attn"), ("encoder_blocks", "decoder_blocks", "self_attn")]
)
def test_caches_of_two_stacks(first, second, own):
    encoder, decoder, cross = parts()
    entries = blocks(cross, second, "cross_attn") | blocks(decoder, second, own) | blocks(encoder, first)
    stacks = adapters.from_transformer_lens(ActivationCache(entries))
    same(stacks, Network.encoder_decoder(encoder, decoder, cross))
    del entries[f"{second}.1.cross_attn.hook_pattern"]
    with pytest.raises(InvalidCapacityError, match="cross holds 1 layers, decoder more"):
        adapters.from_transformer_lens(entries).network()
    del entries[f"{first}.0.attn.hook_pattern"]
    with pytest.raises(InvalidArgumentError, match=rf"lacks '{first}.0.attn.hook_pattern' of layers 0 ... 1"):
        adapters.from_transformer_lens(entries)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({}, "dict of 0 entries holds no attention: none is named like 'blocks.0.attn.hook_pattern'"),
        ({"blocks.0.attn.hook_z": 1, 3: 4}, "dict of 2 entries holds no attention"),
        ([1, 2], "cache is list: an ActivationCache, or a mapping"),
        (None, "cache is NoneType"),
        (
            {f"blocks.{i}.attn.hook_pattern": 1 for i in (0, 2, 3)},
            "lacks 'blocks.1.attn.hook_pattern' of layers 0 ... 3",
        ),
        (ActivationCache(blocks(layers()), 5), "lacks 'blocks.3.attn.hook_pattern' of layers 0 ... 4"),
        ({"vision.0.attn.hook_pattern": 1}, "holds 'vision.0.attn.hook_pattern', which is none of blocks.0"),
        (blocks(layers()) | blocks(layers(), name="cross_attn"), "holds attention of decoder and cross"),
    ],
)
def test_caches_that_are_refused(cache, message):
    with pytest.raises(InvalidArgumentError, match=message):
        adapters.from_transformer_lens(cache)


def test_the_real_cache():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lens = pytest.importorskip("transformer_lens")
    given = layers(causal=True, n_layers=11)
    entries = dict(sorted(blocks(given).items()))
    cache = lens.ActivationCache(entries, SimpleNamespace(cfg=SimpleNamespace(n_layers=11)))
    same(adapters.from_transformer_lens(cache), Network.decoder(given))
    same(adapters.from_transformer_lens(cache.remove_batch_dim()), Network.decoder(given))


# ---- nnsight ---------------------------------------------------------------------------------------------------------


class Proxy:
    """As nnsight's before 0.5: everything is an attribute of it, and its value is there once it was saved."""

    def __init__(self, *value):
        self._value = value

    @property
    def value(self):
        if not self._value:
            raise ValueError("Accessing value before it's been set.")
        return self._value[0]

    def __getattr__(self, name):
        return Proxy()


@pytest.mark.parametrize("causal", [False, True])
def test_what_nnsight_saved(causal):
    given = list(layers(causal))
    wanted = (Network.decoder if causal else Network.encoder)(given)
    hidden = torch.zeros(1, 4, 8)
    for saved in (
        given,
        tuple(given),
        [layer[0] for layer in given],
        [Proxy(layer) for layer in given],
        Proxy([Proxy(layer) for layer in given]),
        [(hidden, layer) for layer in given],
        [Proxy((hidden, layer, None)) for layer in given],
        [(Proxy(hidden), Proxy(layer)) for layer in given],
        torch.stack(given),
    ):
        same(adapters.from_nnsight(saved), wanted)


def test_two_stacks_that_nnsight_saved():
    encoder, decoder, cross = parts()
    saved = {"encoder": list(encoder), "decoder": Proxy(list(decoder)), "cross": [Proxy(layer) for layer in cross]}
    same(adapters.from_nnsight(saved), Network.encoder_decoder(encoder, decoder, cross))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([], "saved is empty: at least one layer is needed"),
        ({}, "saved names None: it must be a sequence of layers, or a mapping of 'encoder', 'decoder', 'cross'"),
        ({"encoder": []}, r"saved\['encoder'\] is empty"),
        ({"layers": [1]}, "saved names 'layers'"),
        (None, "saved is NoneType: a sequence of one entry a layer"),
        ("text", "saved is str"),
        ([torch.eye(3)[None, None], None], "layer 1 of saved is None, not attention weights: load the model with"),
        ([Proxy()], r"saved\[0\] has no value: call .save\(\) on it inside the trace \(Accessing value before"),
        (Proxy(), r"saved has no value: call .save\(\)"),
        ([(torch.zeros(1, 4, 8), None)], r"saved\[0\] is a tuple with 0 arrays of four axes, .*eager"),
        ([(torch.eye(3)[None, None],) * 2], r"saved\[0\] is a tuple with 2 arrays of four axes"),
        ({"decoder": [torch.eye(3)], "cross": [torch.eye(3)]}, "saved holds attention of decoder and cross"),
    ],
)
def test_what_of_nnsight_is_refused(saved, message):
    with pytest.raises(InvalidArgumentError, match=message):
        adapters.from_nnsight(saved)


def test_the_real_nnsight():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nnsight = pytest.importorskip("nnsight")
        transformers = pytest.importorskip("transformers")
        size = {"vocab_size": 20, "n_embd": 8, "n_layer": 3, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
        config = transformers.GPT2Config(**size, attn_implementation="eager")
        model = transformers.GPT2LMHeadModel(config).eval()
        ids = torch.tensor([[3, 4, 5, 6]])
        wrapped = nnsight.NNsight(model)
        with wrapped.trace(ids):
            weights = nnsight.save([layer.attn.output[1] for layer in wrapped.transformer.h])
        with wrapped.trace(ids):  # in a trace, everything is asked for in the order of computation
            returned = nnsight.save([layer.attn.output for layer in wrapped.transformer.h])
    wanted = Network.decoder(model(ids, output_attentions=True).attentions)
    same(adapters.from_nnsight(weights), wanted)
    same(adapters.from_nnsight(returned), wanted)


@pytest.mark.parametrize("layer", ["text", 3, torch.ones(4), torch.ones(2, 2, dtype=torch.complex64), [[1, 2], [3]]])
def test_layers_that_are_no_attention(layer):
    with pytest.raises(AttnflowError, match=r"layer 0 of saved|saved\[0\]"):
        adapters.from_nnsight([layer])
