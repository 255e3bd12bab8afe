"""Conversations, put through a chat template: the ids that the template itself makes, once each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import ids, llama, matrices, plain, tokenizer

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow import Network  # noqa: E402
from attnflow.capture import contributions  # noqa: E402
from attnflow.errors import InvalidArgumentError  # noqa: E402

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %} on{% elif message.role == 'user' %} a{% else %} and{% endif %}"
    " , {{ message.content }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} and ,{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "run fast"},
    {"role": "user", "content": "the cat saw the dog"},
]
TOKENS = ["<s>", "on", ",", "run", "fast", "</s>", "a", ",", "the", "cat", "saw", "the", "dog", "</s>", "and", ","]
GREEDY = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}


def chatting(template: str | None = None, **special: Any) -> Any:
    """A tokenizer with a chat template."""
    made = tokenizer(template, bos_token="<s>", eos_token="</s>", **special)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture
def decoder() -> Any:
    return llama()


@pytest.mark.parametrize("template", [None, "<s> $A", "<s> $A </s>"])
def test_the_ids_are_the_templates_own(decoder: Any, template: str | None) -> None:
    """A tokenizer that puts a start before every text puts no second one before a conversation."""
    made = chatting(template)
    expected = made.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=True, return_dict=True)
    result = attnflow.explain(decoder, made, MESSAGES)
    assert ids(result.tokens) == expected["input_ids"] == ids(TOKENS)
    assert result.tokens.count("<s>") == 1
    assert result.options["start_token"] == "<s>"


def test_places_are_those_in_the_rendered_text(decoder: Any) -> None:
    made = chatting()
    result = attnflow.explain(decoder, made, MESSAGES)
    assert result.text == made.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    for token, span in zip(result.tokens, result.offsets, strict=True):
        assert (span is None) == (token in ("<s>", "</s>"))
        if span is not None:
            assert result.text[slice(*span)] == token
    by_word = attnflow.explain(decoder, made, MESSAGES, target="saw")
    assert by_word.targets == ((TOKENS.index("saw"),),)


def test_special_tokens_are_no_players_and_the_prompts_end_predicts(decoder: Any) -> None:
    result = attnflow.explain(decoder, chatting(), MESSAGES)
    assert result.players.tolist() == [p for p, token in enumerate(TOKENS) if token not in ("<s>", "</s>")]
    assert result.targets == ((len(TOKENS) - 1,),)
    layers = matrices(contributions(decoder, ids(TOKENS), measure="alti"))
    expected = Network.decoder(layers, residual=0.0, calibration="excess").source_flows(-1).values
    assert np.array_equal(result.values, expected[:, result.players])
    everything = attnflow.explain(decoder, chatting(), MESSAGES, sources="all")
    assert everything.players.size == len(TOKENS)


def test_a_conversation_equals_its_text_written_out(decoder: Any) -> None:
    """Special tokens written in a text are read as what they are."""
    chat = attnflow.explain(decoder, chatting(), MESSAGES)
    text = attnflow.explain(decoder, plain(), chat.text)
    assert text.tokens == chat.tokens
    assert np.array_equal(text.values[:, np.isin(text.players, chat.players)], chat.values)


def test_a_tuple_of_messages_and_a_single_one(decoder: Any) -> None:
    result = attnflow.explain(decoder, chatting(), tuple(MESSAGES))
    assert result.tokens == tuple(TOKENS)
    assert np.array_equal(result.values, attnflow.explain(decoder, chatting(), MESSAGES).values)
    one = attnflow.explain(decoder, chatting(), MESSAGES[1:])
    assert one.tokens == ("<s>", "a", ",", "the", "cat", "saw", "the", "dog", "</s>", "and", ",")


def test_a_template_without_a_start_gets_none(decoder: Any) -> None:
    made = chatting()
    made.chat_template = TEMPLATE.replace("{{ bos_token }}", "")
    result = attnflow.explain(decoder, made, MESSAGES)
    assert result.tokens == tuple(TOKENS[1:])
    assert result.options["start_token"] is None
    asked = attnflow.explain(decoder, made, MESSAGES, start_token=True)
    assert asked.tokens == tuple(TOKENS)
    assert asked.options["start_token"] == "<s>"
    for span, token in zip(asked.offsets, asked.tokens, strict=True):
        assert span is None or asked.text[slice(*span)] == token


@pytest.mark.parametrize("chain", [False, True])
def test_the_answer_to_a_conversation(decoder: Any, chain: bool) -> None:
    made, n = chatting(), len(TOKENS)
    result = attnflow.explain(decoder, made, MESSAGES, generate=GREEDY, chain=chain)
    given = torch.tensor([ids(TOKENS)])
    answer = decoder.generate(given, attention_mask=torch.ones_like(given), pad_token_id=0, **GREEDY)[0].tolist()
    assert ids(result.tokens) == answer[:-1]
    network = Network.decoder(
        matrices(contributions(decoder, answer[:-1], measure="alti")), residual=0.0, calibration="excess"
    )
    network = network.chained([n, n + 1]) if chain else network
    expected = network.source_flows([n - 1, n, n + 1]).values
    np.testing.assert_allclose(result.values, expected[:, result.players], rtol=1e-12, atol=1e-12)
    rendered = made.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert result.text.startswith(rendered)


def test_several_conversations(decoder: Any) -> None:
    several = [MESSAGES, MESSAGES[1:]]
    together = attnflow.explain(decoder, chatting(), several)
    for one, messages in zip(together, several, strict=True):
        alone = attnflow.explain(decoder, chatting(), messages)
        assert one.tokens == alone.tokens
        np.testing.assert_allclose(one.values, alone.values, atol=1e-6)


# --- Refused ---------------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template_is_refused(decoder: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"conversation, and \w+ has no chat template"):
        attnflow.explain(decoder, plain(), MESSAGES)


def test_a_template_that_refuses_a_conversation_is_quoted(decoder: Any) -> None:
    made = chatting()
    made.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidArgumentError, match="roles must alternate"):
        attnflow.explain(decoder, made, MESSAGES)


def test_a_template_that_is_tokenized_otherwise_is_refused(decoder: Any) -> None:
    class Otherwise(type(plain())):  # type: ignore[misc]
        """Makes other ids of a conversation than of its text."""

        def apply_chat_template(self, messages: Any, tokenize: bool = True, **options: Any) -> Any:
            made = super().apply_chat_template(messages, tokenize=tokenize, **options)
            return {"input_ids": [2, *made["input_ids"]]} if tokenize else made

    made = Otherwise(tokenizer_object=plain()._tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE)
    with pytest.raises(InvalidArgumentError, match=r"makes 17 ids of the conversation and its rendered text 16 others"):
        attnflow.explain(decoder, made, MESSAGES)


@pytest.mark.parametrize(
    "messages", [[{"content": "the cat"}], [{"role": "user"}], [{"role": "user", "content": "cat"}, "dog"], [{}], [[]]]
)
def test_what_is_no_conversation_is_refused(decoder: Any, messages: Any) -> None:
    made = chatting()
    made.chat_template = TEMPLATE.replace("message.content", "message['content'].strip()")
    with pytest.raises(InvalidArgumentError):
        attnflow.explain(decoder, made, messages)
