"""What an argument of these scripts may be, and which runs write the committed files."""

from __future__ import annotations

import argparse
import math

__all__ = ["at_least_one", "is_whole", "seconds"]


def at_least_one(text: str) -> int:
    """For argparse: 1, 2, 3 ..."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """For argparse: more than 0, and finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, more than 0")
    return number


def is_whole(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bool:
    """Whether everything was left at its default: a quick look must not replace figures that are committed."""
    return all(value == parser.get_default(name) for name, value in vars(options).items())
