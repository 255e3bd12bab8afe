"""Images and recordings from files, as processors of transformers take them."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

import attnflow

__all__ = ["image", "recording"]


def image(path: Path) -> Any:
    """An image in red, green and blue."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise attnflow.errors.MissingDependencyError("reading an image needs pillow: pip install pillow") from error
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except UnidentifiedImageError as error:
        raise attnflow.errors.InvalidArgumentError(f"--image {path}: is no image that can be read") from error


def recording(path: Path) -> Any:
    """Samples from -1 to 1 of a recording, its channels averaged, at 16,000 a second."""
    try:
        with wave.open(str(path), "rb") as opened:
            width, channels, rate = opened.getsampwidth(), opened.getnchannels(), opened.getframerate()
            content = opened.readframes(opened.getnframes())
    except (wave.Error, EOFError) as error:
        raise attnflow.errors.InvalidArgumentError(
            f"--audio {path}: is no WAV file that can be read: {error}"
        ) from error
    if width != 2 or rate != 16000:
        raise attnflow.errors.InvalidArgumentError(
            f"--audio {path}: has {8 * width} bits and {rate} samples a second; 16 bits and 16000 are needed"
        )
    samples = np.frombuffer(content, dtype="<i2").reshape(-1, channels).mean(axis=1)
    if samples.size == 0:
        raise attnflow.errors.InvalidArgumentError(f"--audio {path}: holds no samples")
    return (samples / 32768).astype(np.float32)
