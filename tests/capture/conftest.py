"""Fixtures of the capture tests; the models are in ``families.py``."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from families import LENGTH, VOCABULARY  # noqa: E402


@pytest.fixture
def ids() -> Any:
    """One text of :data:`LENGTH` tokens, none of them special: (1, n)."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(5, VOCABULARY, (1, LENGTH), generator=generator)
