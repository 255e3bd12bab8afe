"""How much a capture holds: said beforehand, refused above a limit, put into files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, build, build_encoder_decoder, matrices

torch = pytest.importorskip("torch")
from attnflow.capture import attentions, contributions, estimate  # noqa: E402
from attnflow.errors import InvalidArgumentError  # noqa: E402


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_is_what_is_captured(family: str, ids: Any) -> None:
    model = build(family, "eager" if family == "falcon_alibi" else None)
    expected, captured = estimate(model, ids), attentions(model, input_ids=ids)
    assert expected is not None
    assert expected.n_bytes == sum(layer.matrix.nbytes for layer in captured.layers)
    n = ids.shape[1]
    assert expected.n_edges in (3 * n * n, 3 * n * (n + 1) // 2)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_estimate_of_two_stacks(family: str) -> None:
    model = build_encoder_decoder(family)
    inputs = {"input_ids": [[5] * 9] * 2, "decoder_input_ids": [[6] * 4] * 2}
    expected = estimate(model, inputs)
    assert expected is not None
    assert expected.shapes == ((3, (2, 9, 9)), (2, (2, 4, 4)), (2, (2, 4, 9)))
    assert expected.n_bytes == sum(layer.matrix.nbytes for layer in attentions(model, **inputs).layers)
    assert expected.n_edges == 2 * (3 * 81 + 2 * (10 + 36))


def test_too_much_is_refused_before_the_model_runs(ids: Any) -> None:
    model = build("llama")
    ran: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(InvalidArgumentError, match=r"6\.2 KiB \(3 layers of 1 x 23 x 23.*memory_limit=6000.*raise"):
        attentions(model, input_ids=ids, memory_limit=6000)
    assert not ran
    assert len(attentions(model, input_ids=ids, memory_limit=7000).layers) == 3
    assert ran
    handle.remove()


def test_the_default_limit_is_half_of_the_memory(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnflow.capture import _memory

    monkeypatch.setattr(_memory, "_half_of_memory", lambda: 1000)
    with pytest.raises(InvalidArgumentError, match=r"half of this machine's memory is 1000 bytes.*spill"):
        attentions(build("llama"), input_ids=ids)
    monkeypatch.setattr(_memory, "_half_of_memory", lambda: None)
    assert len(attentions(build("llama"), input_ids=ids).layers) == 3


@pytest.mark.parametrize("measure", ["attention", "alti"])
def test_matrices_in_files(measure: str, ids: Any, tmp_path: Path) -> None:
    model = build("llama")
    batch = torch.cat([ids, ids.flip(1)])
    spilled = contributions(model, batch, measure=measure, spill=tmp_path, memory_limit=1)
    assert list(tmp_path.iterdir()) == []  # nameless already
    for got, expected in zip(spilled.decoder, contributions(model, batch, measure=measure).decoder, strict=True):
        assert torch.equal(got, expected)
        got += 1  # it is memory like any other
    again = contributions(model, ids, measure=measure, spill=str(tmp_path))
    for got, expected in zip(matrices(again), matrices(contributions(model, ids, measure=measure)), strict=True):
        assert torch.equal(got, expected)


def test_spilled_matrices_survive_the_model(ids: Any, tmp_path: Path) -> None:
    model = build("bloom")
    spilled = attentions(model, input_ids=ids, spill=tmp_path)
    del model
    assert float(spilled.decoder[2].sum()) == pytest.approx(ids.shape[1], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": 0}, "memory_limit.*positive.*0"),
        ({"memory_limit": "1 GB"}, "memory_limit.*'1 GB'"),
        ({"memory_limit": True}, "memory_limit"),
        ({"spill": "no/such/folder"}, "spill must be a folder that exists"),
        ({"spill": 3}, "spill.*3"),
        ({"spill": ""}, "spill must be a folder that exists, got ''"),
        ({"spill": "/proc"}, "spill must be a folder that can be written to, got '/proc'"),
    ],
)
def test_bad_limits(options: dict[str, Any], message: str, ids: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        attentions(build("llama"), input_ids=ids, **options)


def test_a_folder_that_is_full(ids: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to a map of a file that found no room would end the program."""

    def full(handle: int, start: int, count: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InvalidArgumentError, match=r"spill='.*' has no room for a layer of 2\.1 KiB: .*No space left"):
        attentions(build("llama"), input_ids=ids, spill=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_estimates_of_what_stands_for_token_ids(ids: Any) -> None:
    """Embeddings, and what a decoder reads where nothing is said of it."""
    embedded = {"inputs_embeds": torch.randn(2, 7, 32)}
    model = build("llama")
    expected = estimate(model, embedded)
    assert expected is not None
    assert expected.n_bytes == sum(layer.matrix.nbytes for layer in attentions(model, **embedded).layers)
    model = build_encoder_decoder("bart")
    expected = estimate(model, {"input_ids": ids})
    assert expected is not None
    assert expected.n_bytes == sum(layer.matrix.nbytes for layer in attentions(model, input_ids=ids).layers)
