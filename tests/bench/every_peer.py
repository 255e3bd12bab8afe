"""All libraries that ``attnflow bench`` compares with, or no test of this folder; under CI, miss none of them."""

from __future__ import annotations

import os

import pytest

from attnflow.bench import peers

PEERS, missing = peers.find()
if missing:
    message = f"attnflow bench's libraries are not all installed: {', '.join(missing)}"
    if os.environ.get("CI"):
        raise RuntimeError(f"{message}; the setup should have installed them")
    pytest.skip(message, allow_module_level=True)
