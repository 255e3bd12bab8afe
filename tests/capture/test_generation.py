"""What a model says, found out first, and its attention while it says it: one pass over all shows the same."""

from __future__ import annotations

from typing import Any

import pytest
from families import ENCODER_DECODERS, PAD, TWO_SIDED, VOCABULARY, build, build_encoder_decoder, make

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from attnflow.capture import attentions, decoder_inputs, generate, is_encoder_decoder  # noqa: E402
from attnflow.errors import InvalidArgumentError  # noqa: E402

STEPS = 6
GREEDY = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
DECODERS = ["gpt2", "llama", "mistral", "gemma3", "qwen3", "opt"]
TWO_STACKS = ["bart", "marian", "t5", "mbart"]


def whisper(implementation: str | None = None) -> Any:
    """Sixteen positions of sound."""
    options = {
        **{name: value for name, value in TWO_SIDED.items() if name != "max_position_embeddings"},
        "num_mel_bins": 8,
        "max_source_positions": 16,
        "max_target_positions": 32,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    model = make("WhisperForConditionalGeneration", "WhisperConfig", options, implementation)
    model.generation_config.no_timestamps_token_id = 4
    return model


def sound() -> dict[str, Any]:
    return {"input_features": torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(5))}


def collected(steps: Any, n_keys: int | None = None) -> list[Any]:
    """Attention kept while generating, a step at a time, as one matrix a layer: the mean over heads.

    A cache of a sliding window holds the last keys alone; those that it dropped are those of zero weight.
    """
    layers = []
    for layer in range(len(steps[0])):
        total = sum(step[layer].shape[2] for step in steps)
        rows = torch.zeros(total, total if n_keys is None else n_keys)
        start = 0
        for step in steps:
            weights = step[layer][0].mean(dim=0)
            stop = start + weights.shape[0]
            last = stop if n_keys is None else n_keys
            rows[start:stop, last - weights.shape[1] : last] = weights
            start = stop
        layers.append(rows)
    return layers


def close(got: list[Any], expected: list[Any], tolerance: float) -> None:
    assert len(got) == len(expected)
    for one, wanted in zip(got, expected, strict=True):
        assert one[0].shape == wanted.shape
        assert wanted.amax(dim=-1).mean() > 1.05 / wanted.shape[-1]  # there is something to get wrong
        assert (one[0] - wanted).abs().max() <= tolerance


@pytest.mark.parametrize("family", DECODERS)
def test_one_pass_over_the_answer_sees_what_was_attended_to_while_it_was_given(family: str, ids: Any) -> None:
    kept = build(family, "eager").generate(
        ids, attention_mask=torch.ones_like(ids), output_attentions=True, return_dict_in_generate=True, **GREEDY
    )
    read, said = generate(build(family), ids, GREEDY)
    assert kept.sequences[0].tolist() == [*read, said[-1]]
    assert read == [*ids[0].tolist(), *said[:-1]]
    assert len(said) == STEPS
    close(attentions(build(family), input_ids=[read]).decoder, collected(kept.attentions), 1e-6)


@pytest.mark.parametrize("family", TWO_STACKS)
def test_and_so_it_does_of_an_encoder_decoder(family: str, ids: Any) -> None:
    kept = build_encoder_decoder(family, "eager").generate(
        ids, attention_mask=torch.ones_like(ids), output_attentions=True, return_dict_in_generate=True, **GREEDY
    )
    model = build_encoder_decoder(family)
    read, said = generate(model, ids, GREEDY)
    start = model.config.decoder_start_token_id
    assert kept.sequences[0].tolist() == [start, *said]
    assert read == [start, *said[:-1]]
    captured = attentions(model, input_ids=ids, decoder_input_ids=[read])
    tolerance = 1e-5 if family == "t5" else 1e-6
    close(captured.encoder, [layer[0].mean(dim=0) for layer in kept.encoder_attentions], tolerance)
    close(captured.decoder, collected(kept.decoder_attentions), tolerance)
    close(captured.cross, collected(kept.cross_attentions, ids.shape[1]), tolerance)


def test_and_of_speech() -> None:
    plain = transformers.GenerationMixin.generate  # Whisper's own returns no attentions
    model = whisper("eager")
    kept = plain(
        model,
        **sound(),
        decoder_input_ids=torch.tensor([[1]]),
        output_attentions=True,
        return_dict_in_generate=True,
        **GREEDY,
    )
    model = whisper()
    said = kept.sequences[0].tolist()[1:]
    read = [1, *said[:-1]]
    captured = attentions(model, **sound(), decoder_input_ids=[read])
    close(captured.encoder, [layer[0].mean(dim=0) for layer in kept.encoder_attentions], 1e-6)
    close(captured.decoder, collected(kept.decoder_attentions), 1e-6)
    close(captured.cross, collected(kept.cross_attentions, 16), 1e-6)


def test_speech_is_answered_from_its_prompt() -> None:
    read, said = generate(whisper(), sound(), {"max_new_tokens": 5, "logits_processor": [Saying(7, 8, 9, 2)]})
    assert (read, said) == ([1, 4, 7, 8], [7, 8, 9])  # its own generate() keeps the end to itself


# --- Options ---------------------------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_sample(ids: Any) -> None:
    model, options = build("llama"), {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5, "eos_token_id": None}
    torch.manual_seed(11)
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()
    torch.manual_seed(11)
    read, said = generate(model, ids, options)
    assert [*read, said[-1]] == expected
    others = set()
    for seed in range(4):
        torch.manual_seed(seed)
        others.add(tuple(generate(model, ids, options)[1]))
    assert len(others) > 1


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_beams(family: str, ids: Any) -> None:
    model = (build_encoder_decoder if family == "bart" else build)(family)
    options = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False}
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)[0].tolist()
    read, said = generate(model, ids, options)
    assert [*read, said[-1]] == expected


class Saying:
    """A logits processor that makes a model say certain tokens, one after another."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.calls = tokens, 0

    def __call__(self, _: Any, scores: Any) -> Any:
        made = torch.full_like(scores, -torch.inf)
        made[:, self.tokens[min(self.calls, len(self.tokens) - 1)]] = 0
        self.calls += 1
        return made


@pytest.mark.parametrize("family", ["llama", "bart", "t5"])
def test_an_answer_ends_where_it_ends(family: str, ids: Any) -> None:
    model = (build if family == "llama" else build_encoder_decoder)(family)
    end = model.generation_config.eos_token_id
    read, said = generate(model, ids, {"max_new_tokens": 9, "logits_processor": [Saying(7, 8, end, 9)]})
    assert said == [7, 8, end]
    assert read[-2:] == [7, 8]
    assert len(read) == (ids.shape[1] + 2 if family == "llama" else 3)


def test_an_end_that_is_asked_for(ids: Any) -> None:
    model = build("llama")
    saying = {"max_new_tokens": 5, "logits_processor": [Saying(7, 8, 2, 9)]}
    assert generate(model, ids, {**saying, "eos_token_id": 8})[1] == [7, 8]
    saying["logits_processor"] = [Saying(7, 2, 8, 9, 9)]
    assert generate(model, ids, {**saying, "eos_token_id": [8, 9]})[1] == [7, 2, 8]
    saying["logits_processor"] = [Saying(7, 2, 8, 9, 9)]
    assert generate(model, ids, {**saying, "eos_token_id": torch.tensor([8, 9])})[1] == [7, 2, 8]
    saying["logits_processor"] = [Saying(7, 2, 8, 9, 9)]
    saying["generation_config"] = transformers.GenerationConfig(
        eos_token_id=8, max_new_tokens=saying.pop("max_new_tokens")
    )
    assert generate(model, ids, saying)[1] == [7, 2, 8]


def test_an_end_inside_the_prompt_ends_nothing(ids: Any) -> None:
    prompt = [5, 2, 6, 2]
    read, said = generate(build("llama"), prompt, {"max_new_tokens": 3, "logits_processor": [Saying(7)]})
    assert (read, said) == ([5, 2, 6, 2, 7, 7], [7, 7, 7])


def test_scores_and_dictionaries_may_be_asked_for(ids: Any) -> None:
    more = {"return_dict_in_generate": True, "output_scores": True, "num_return_sequences": 1}
    assert generate(build("llama"), ids, {**GREEDY, **more}) == generate(build("llama"), ids, GREEDY)


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_the_model_is_left_as_it_was(family: str, ids: Any) -> None:
    model = (build if family == "llama" else build_encoder_decoder)(family).train()
    frozen = next(model.children()).eval()

    def state() -> list[Any]:
        modules = [(m.training, len(m._forward_pre_hooks), len(m._forward_hooks)) for m in model.modules()]
        return [modules, model.config.to_dict(), model.generation_config.to_dict(), torch.is_grad_enabled()]

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    before = state()
    generate(model, ids, GREEDY)
    with pytest.raises(KeyboardInterrupt):
        generate(model, ids, {**GREEDY, "logits_processor": [stop]})
    with pytest.raises(ValueError, match="not_an_option"):
        generate(model, ids, {"not_an_option": 3})
    assert state() == before
    assert not frozen.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"input_ids": [[3]]}, r"input_ids=\[\[3\]\] has no meaning"),
        ({"attention_mask": [[1]]}, "attention_mask"),
        ({"decoder_input_ids": [[1]]}, "decoder_input_ids"),
        (3, "options must be a mapping.*3"),
    ],
)
def test_options_that_make_something_else(options: dict[str, Any], message: str, ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        generate(build("llama"), ids, options)


def test_models_and_inputs_that_cannot_be_answered(ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="BertModel cannot generate"):
        generate(build("bert"), ids)
    with pytest.raises(InvalidArgumentError, match="one text is answered at a time, and inputs hold 2"):
        generate(build("llama"), torch.cat([ids, ids]))


# --- What a decoder reads for an answer that is given ----------------------------------------------------------------


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_labels_are_shifted_as_the_model_shifts_them(family: str) -> None:
    model = build_encoder_decoder(family)
    labels = [7, 9, 8, 2]
    read, said = decoder_inputs(model, labels)
    assert said == labels
    assert read[1:] == labels[:-1]
    assert len(read) == len(said)
    if family != "fsmt":
        source = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            given = model(input_ids=source, labels=torch.tensor([labels])).logits
            shifted = model(input_ids=source, decoder_input_ids=torch.tensor([read])).logits
        assert torch.equal(given, shifted)


def test_a_start_that_the_tokenizer_wrote_is_not_said() -> None:
    model = build_encoder_decoder("bart")
    assert decoder_inputs(model, [1, 7, 8, 2]) == ([1, 7, 8], [7, 8, 2])
    assert decoder_inputs(model, [1]) == ([1], [1])  # nothing but a start: it is what is said
    with pytest.raises(InvalidArgumentError, match="target is empty"):
        decoder_inputs(model, [])


@pytest.mark.parametrize("labels", ["the cat", [1.5], [-1], None, [[4, 5]]])
def test_labels_that_are_no_token_ids(labels: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="labels must be token ids"):
        decoder_inputs(build_encoder_decoder("bart"), labels)


def test_a_start_that_is_unknown() -> None:
    model = torch.nn.Linear(1, 1)
    model.config = transformers.BartConfig(decoder_start_token_id=None, **PAD)
    with pytest.raises(InvalidArgumentError, match="Linear has no decoder_start_token_id"):
        decoder_inputs(model, [5, 6])


def test_two_stacks() -> None:
    assert is_encoder_decoder(whisper())
    assert not is_encoder_decoder(build("llama"))
    assert not is_encoder_decoder(build_encoder_decoder("marian").get_encoder())
    assert VOCABULARY == 61
