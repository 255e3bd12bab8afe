"""What cannot be explained, parameter by parameter: the value and the rule are named, and the model is as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import LONG, TEXT, bart, bert_like, build, llama, plain, state, two_sided, vit, whisper

torch = pytest.importorskip("torch")
import attnflow  # noqa: E402
from attnflow.errors import CaptureError, InvalidArgumentError  # noqa: E402

ANSWER = {"continuation": " mat and run"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": torch.nn.Linear(2, 2)}, "model must be a transformers model with a .config"),
    ({"model": "SmolLM2"}, "model must be a model of transformers, already loaded, got str 'SmolLM2'"),
    ({"model": llama}, "model must be a model of transformers.*function"),
    ({"tokenizer": "gpt2"}, "tokenizer must be a tokenizer of transformers, already loaded, got str 'gpt2'"),
    ({"tokenizer": 3}, "tokenizer must be a tokenizer.*int 3"),
    ({"text": 1.5}, r"text must be a str.*float 1\.5"),
    ({"text": True}, "text must be a str.*True"),
    ({"text": b"the cat"}, "text must be a str.*bytes b'the cat'"),
    ({"text": object()}, "LlamaForCausalLM reads text.*object"),
    ({"text": np.array(["the cat"])}, "LlamaForCausalLM reads text.*ndarray"),
    ({"text": {"the cat"}}, "LlamaForCausalLM reads text.*set"),
    ({"text": {"text": "the cat"}}, "LlamaForCausalLM .*'text'|holds? no tensor"),
    ({"target": b"cat"}, "target=b'cat' is bytes"),
    ({"target": {}}, "target is empty"),
    ({"target": object()}, "target is <object.*integer"),
    ({"target": float("nan")}, "target is nan; it must be an integer"),
    ({"target": 10**30}, "target is 10+, but the input has 11 tokens"),
    ({"target": [[1, 2]]}, r"target\[0\] is \[1, 2\]"),
    ({"generate": "greedy"}, "generate must be True, or a mapping of generate.*'greedy'"),
    ({"generate": ["max_new_tokens"]}, "generate must be True, or a mapping"),
    ({"generate": {"max_new_tokens": 2}, "continuation": "cat"}, "continuation.*leave out generate"),
    ({"continuation": 3}, "continuation must be a str, got int 3"),
    ({"continuation": ["cat"]}, "continuation must be a str, got list"),
    ({"continuation": ""}, "continuation is empty"),
    ({**ANSWER, "steps": 3}, "steps is 3, but the answer has 3 steps"),
    ({**ANSWER, "steps": "all"}, "steps is 'all'; it must be an integer"),
    ({**ANSWER, "steps": [0.5]}, r"steps\[0\] is 0\.5"),
    ({"steps": []}, r"steps=\[\] are of an answer"),
    ({"chain": "yes"}, "chain must be True or False, got 'yes'"),
    ({"chain": None}, "chain must be True or False, got None"),
    ({"receptive_field": 1}, "receptive_field must be True or False, got 1"),
    ({"measure": "Alti"}, "measure must be one of .*'alti'.*got 'Alti'"),
    ({"measure": 3}, "measure must be one of .*3"),
    ({"measure": []}, "measure holds no matrix"),
    ({"measure": [np.ones((3, 3))] * 3}, r"must be a tensor of shape \(11, 11\).*\(3, 3\)"),
    ({"measure": lambda attention: None}, r"shape \(11, 11\).*NoneType"),
    ({"measure": lambda attention: -torch.ones(11, 11)}, "finite and not negative"),
    ({"objective": 3}, "objective has no meaning for measure 'alti'"),
    ({"residual": -0.1}, r"residual=-0\.1|residual is -0\.1"),
    ({"residual": "half"}, "residual.*'half'"),
    ({"residual": True}, "residual.*True"),
    ({"residual": 0.5}, "count the residual twice"),
    ({"heads": "mean ", "measure": "attention"}, "heads.*'mean '"),
    ({"heads": 4, "measure": "attention"}, "heads?.*4"),
    ({"heads": [1.0, 2.0], "measure": "attention"}, "heads?.*2"),
    ({"heads": [1.0, -1.0, 0.0, 0.0], "measure": "attention"}, "heads"),
    ({"calibration": "Excess"}, "calibration.*'Excess'"),
    ({"calibration": True}, "calibration.*True"),
    ({"merge": "sublayer"}, "merge must be 'sublayers' or 'single', got 'sublayer'"),
    ({"merge": 1}, "merge must be 'sublayers' or 'single', got 1"),
    ({"sources": "cat"}, "sources must be None, 'all' or positions.*'cat'"),
    ({"sources": 2}, "sources is 2; it must be several positions"),
    ({"sources": [1, 1]}, "sources names token 1 more than once"),
    ({"sources": [11]}, r"sources\[0\] is 11, but the input has 11 tokens"),
    ({"sources": [None]}, r"sources\[0\] is None"),
    ({"attribution": "nash"}, "attribution must be one of 'independent', 'shapley', .*'random', got 'nash'"),
    ({"attribution": None}, "attribution must be one of .*None"),
    ({"attribution": "fair", "keep": 5}, "attribution='fair' needs all edges: leave out keep and below"),
    ({"attribution": "rollout", "below": 0.1}, "attribution='rollout' needs all edges: leave out keep and below"),
    ({"attribution": "raw_attention", "residual": 0.5}, "residual=0.5 is of a network, and .*'raw_attention' has none"),
    (
        {"attribution": "random", "receptive_field": True},
        "receptive_field=True has no meaning for attribution='random'",
    ),
    ({**ANSWER, "chain": True, "attribution": "rollout"}, "chain=True has no meaning for attribution='rollout'"),
    ({**ANSWER, "chain": True, "attribution": "leave_one_out"}, "chain=True has no meaning for .*'leave_one_out'"),
    ({"sampling": {"permutations": 10}}, "sampling has 'permutations', which is of .*'shapley', and it is 'indep"),
    (
        {"attribution": "random", "sampling": {"tolerance": 1}},
        "sampling has 'tolerance', .*, and it is 'random",
    ),
    ({"attribution": "random", "sampling": {"seed": -1}}, "seed"),
    ({"attribution": "leave_one_out", "leave_out": "blank"}, "leave_out must be 'mask' or 'delete', got 'blank'"),
    ({"leave_out": "delete"}, "leave_out='delete' is of attribution='leave_one_out', and it is 'independent'"),
    ({"units": "phrases"}, "units must be 'tokens', 'words', 'sentences' or spans .*, got 'phrases'"),
    ({"units": 3}, "units is 3; it must be 'words', 'sentences' or a sequence of spans"),
    ({"units": []}, "units is empty; at least one span is needed"),
    ({"units": [(0, 3), 5]}, r"units\[1\] is 5; it must be a span"),
    ({"units": [(0, 3, 5)]}, r"units\[0\] is \(0, 3, 5\); it must be a span"),
    ({"units": [(3, 3)]}, r"units\[0\] = \(3, 3\) is empty"),
    ({"units": [(0, 999)]}, r"units\[0\] is 999; it must be an integer from 0 to 36"),
    ({"units": [(0, 7), (4, 9)]}, r"units \(0, 7\) and \(4, 9\) overlap"),
    ({"units": [(3, 4)]}, r"units\[0\] = \(3, 4\) holds no token: ' '"),
    ({"evidence": 1}, "evidence must be True or False, got 1"),
    ({"attribution": "shapley", "sampling": 10}, "sampling must be a mapping of permutations, tolerance, seed"),
    ({"attribution": "shapley", "sampling": {"orders": 10}}, "sampling has no 'orders'"),
    ({"attribution": "shapley", "sampling": {"permutations": 3}}, "permutations is 3; it must be even"),
    ({"start_token": None}, "start_token must be 'auto', True or False, got None"),
    ({"start_token": "<s>"}, "start_token must be 'auto', True or False, got '<s>'"),
    ({"batch_size": 0}, "batch_size is 0; it must be an integer >= 1"),
    ({"text": [TEXT], "batch_size": -1}, "batch_size is -1; it must be an integer >= 1"),
    ({"threads": -1}, "threads"),
    ({"threads": 1.5}, r"threads.*1\.5"),
    ({"algorithm": "fast"}, "algorithm.*'fast'"),
    ({"algorithm": None}, "algorithm.*None"),
    ({"keep": -1}, "keep.*-1"),
    ({"below": "little"}, "below.*'little'"),
    ({"memory_limit": 0}, "memory_limit must be a positive number of bytes, got 0"),
    ({"memory_limit": 100}, r"captured matrices would take.*memory_limit=100"),
    ({"spill": "no/such/folder"}, "spill must be a folder that exists, got 'no/such/folder'"),
    ({"check": "yes"}, "check must be True or False, got 'yes'"),
    ({"progress": "yes"}, "progress must be a function of .*'yes'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[f"{list(o)[-1]}-{i}" for i, (o, _) in enumerate(WRONG)])
def test_the_value_and_the_rule_are_named(options: dict[str, Any], message: str) -> None:
    model = llama().train()
    before = state(model)
    arguments = {"model": model, "tokenizer": plain(), "text": TEXT, **options}
    with pytest.raises(InvalidArgumentError, match=message):
        attnflow.explain(**arguments)
    assert state(model) == before


def test_every_parameter_is_tried() -> None:
    import inspect

    tried = {name for options, _ in WRONG for name in options}
    assert set(inspect.signature(attnflow.explain).parameters) == tried


def test_what_is_wrong_is_said_before_the_model_runs() -> None:
    model, runs = llama(), []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    late = {"measure", "objective", "heads"}  # of what a layer holds, the layers know
    for options, _ in WRONG:
        if "model" in options or late & set(options) or options.get("residual") == 0.5:
            continue
        with pytest.raises(InvalidArgumentError):
            attnflow.explain(**{"model": model, "tokenizer": plain(), "text": TEXT, **options})
        assert runs == [], options


def test_a_model_without_attention() -> None:
    torch.manual_seed(0)
    model = build("MambaForCausalLM", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4})
    with pytest.raises(CaptureError, match="no attention to capture"):
        attnflow.explain(model, plain(), TEXT)


def test_numbers_that_are_none() -> None:
    model = llama()
    with torch.no_grad():
        next(model.parameters())[7] = torch.nan
    before = state(model)
    with pytest.raises(CaptureError, match=r"nan|not (all )?finite"):
        attnflow.explain(model, plain(), TEXT)
    assert state(model) == before


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

PIXELS = {"pixel_values": torch.zeros(1, 3, 12, 12)}
CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "a text": (llama, plain, TEXT, {}),
    "attention": (llama, plain, TEXT, {"measure": "attention"}),
    "gradients": (llama, plain, TEXT, {"measure": "attention_gradient"}),
    "an answer": (llama, plain, TEXT, {"generate": {"max_new_tokens": 3}}),
    "an answer's gradients": (llama, plain, TEXT, {**ANSWER, "measure": "attention_x_gradient"}),
    "a batch": (llama, plain, [TEXT, "the cat", "a dog"], {"batch_size": 2}),
    "an encoder": (lambda: build("BertModel", LONG), bert_like, TEXT, {}),
    "two stacks": (bart, two_sided, TEXT, {"target": "a dog"}),
    "hooks": (
        lambda: build("BloomForCausalLM", {"hidden_size": 16, "n_layer": 3, "n_head": 4}, "BloomConfig"),
        plain,
        TEXT,
        {"measure": "attention"},
    ),
    "an image": (vit, lambda: None, PIXELS, {}),
    "sound": (whisper, two_sided, {"input_features": torch.ones(1, 8, 24)}, {"target": "a dog"}),
}


@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_leaves_the_model_as_it_was(case: str) -> None:
    make, read, text, options = CASES[case]
    model, tokens = make().train(), read()
    next(model.children()).eval()
    before, stages = state(model), []
    attnflow.explain(model, tokens, text, progress=lambda *step: stages.append(step), **options)
    assert state(model) == before
    assert stages[0][0] == "capture"
    # At the first call, in the middle of the capture, and when it is done.
    for last in sorted({0, 1, len(stages) // 2, len(stages) - 1}):
        calls = iter(range(len(stages)))

        def stop(*_: Any, calls: Any = calls, last: int = last) -> None:
            if next(calls) == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            attnflow.explain(model, tokens, text, progress=stop, **options)
        assert state(model) == before


def test_an_error_in_progress_is_passed_on() -> None:
    class Own(Exception):
        """Of the caller."""

    def fail(stage: str, done: int, total: int) -> None:
        raise Own(stage)

    model = llama()
    before = state(model)
    with pytest.raises(Own, match="capture"):
        attnflow.explain(model, plain(), TEXT, progress=fail)
    assert state(model) == before
