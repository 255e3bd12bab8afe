"""Scores divided by receptive fields: how many positions attend to a player, counted in the attention itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, N, bart, bert_like, build, llama, plain, t5, two_sided, vit

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow.capture import attentions  # noqa: E402


def windows(**more: Any) -> Any:
    return build("MistralForCausalLM", {**LONG, "num_key_value_heads": 2, "sliding_window": 4, **more})


def alternating() -> Any:
    """The first layer sees a window, the second everything."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    more = {"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 3, "layer_types": kinds}
    return build("Gemma3ForCausalLM", {**LONG, **more}, "Gemma3TextConfig")


def local_encoder() -> Any:
    """Every position sees two on either side, in the first layer too."""
    ends = {"cls_token_id": 4, "sep_token_id": 5, "pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 5}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return build("ModernBertModel", {**LONG, **ends, "local_attention": 4, "layer_types": kinds}, "ModernBertConfig")


def seen(first: Any) -> Any:
    """Which row attends to which column, by the weights of the first layer: every weight that no mask holds is > 0."""
    return (first[0] > 0).numpy()


def check(model: Any, tokens: Any, fields: Any, **options: Any) -> Any:
    """Each score is the plain one divided by its player's count; `fields` gives it for (player, sink)."""
    plain_one = attnflow.explain(model, tokens, TEXT, **options)
    divided = attnflow.explain(model, tokens, TEXT, receptive_field=True, **options)
    counts = np.array([[fields(p, max(sink)) for p in divided.players.tolist()] for sink in divided.targets])
    seen_by = np.maximum(counts, 1)
    for name in ("values", "lower", "upper"):
        np.testing.assert_allclose(getattr(divided, name), getattr(plain_one, name) / seen_by, rtol=1e-12)
    assert divided.options["receptive_field"] is True
    assert plain_one.options["receptive_field"] is False
    assert divided.definition.endswith("; divided by receptive fields")
    assert plain_one.definition.endswith("; not divided by receptive fields")
    assert divided.verified
    return counts


@pytest.mark.parametrize("make", [llama, windows, alternating])
@pytest.mark.parametrize("target", [-1, 4, [3, 7]])
def test_a_decoders_text(make: Any, target: Any) -> None:
    model, tokens = make(), plain()
    first = seen(attentions(model, input_ids=[token_ids(tokens, TEXT)]).decoder[0])
    counts = check(model, tokens, lambda p, sink: first[: sink + 1, p].sum(), target=target, sources="all")
    if make is llama:
        sink = max(target) if isinstance(target, list) else target % (N + 1)
        assert counts[0].tolist() == [max(0, sink + 1 - p) for p in range(N + 1)]
    else:
        assert counts.max() == (4 if make is windows else 3)


def token_ids(tokens: Any, text: str) -> list[int]:
    return [tokens.bos_token_id, *tokens(text)["input_ids"]]


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("make", [llama, windows])
def test_an_answer(make: Any, chain: bool) -> None:
    model, tokens = make(), plain()
    first = seen(attentions(model, input_ids=[token_ids(tokens, TEXT + " mat and run")[:-1]]).decoder[0])
    check(
        model,
        tokens,
        lambda p, sink: first[: sink + 1, p].sum(),
        continuation=" mat and run",
        chain=chain,
        measure="attention",
    )


@pytest.mark.parametrize("target", ["cls", "mean", 3])
@pytest.mark.parametrize("make", [lambda: build("BertModel", LONG), local_encoder])
def test_an_encoder(make: Any, target: Any) -> None:
    model, tokens = make(), bert_like()
    first = seen(attentions(model, input_ids=tokens(TEXT, return_tensors="pt")["input_ids"]).encoder[0])
    counts = check(model, tokens, lambda p, _: first[:, p].sum(), target=target, sources="all", measure="attention")
    if make is local_encoder:
        assert counts.max() == 5
        assert counts[0, 0] == 3
    else:
        assert set(counts.flat) == {N + 2}


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("make", [bart, t5])
def test_an_encoder_decoder(make: Any, chain: bool) -> None:
    model, tokens = make(), two_sided()
    n = N + 1
    read = torch.tensor([[model.config.decoder_start_token_id, *tokens("a dog sat")["input_ids"][:-1]]])
    captured = attentions(model, input_ids=tokens(TEXT, return_tensors="pt")["input_ids"], decoder_input_ids=read)
    encoder, decoder = seen(captured.encoder[0]), seen(captured.decoder[0])

    def fields(player: int, sink: int) -> int:
        if player < n:
            return int(encoder[:, player].sum())
        return int(decoder[: sink - n + 1, player - n].sum())

    sources = range(n + 1) if chain else "all"
    counts = check(model, tokens, fields, target="a dog sat", sources=sources, chain=chain, measure="attention")
    assert set(counts[:, :n].flat) == {n}
    assert counts[:, n].tolist() == [1, 2, 3, 4]  # the start is seen by ever more


def test_hooks_tell_no_windows_and_all_is_seen() -> None:
    model = build("BloomForCausalLM", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig")
    check(model, plain(), lambda p, sink: sink + 1 - p, measure="attention")


def test_patches_are_seen_by_all() -> None:
    given = {"pixel_values": torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(7))}
    model = vit()
    plain_one, divided = (attnflow.explain(model, None, given, receptive_field=flag) for flag in (False, True))
    np.testing.assert_allclose(divided.values, plain_one.values / 10, rtol=1e-12)


def test_gradients_too() -> None:
    check(
        llama(),
        plain(),
        lambda p, sink: sink + 1 - p,
        continuation=" mat and run",
        measure="attention_gradient",
        sources=range(8),
    )
