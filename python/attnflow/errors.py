"""Every exception attnflow raises.

All derive from :class:`AttnflowError`, and each also from the builtin a caller would expect, so that both
``except attnflow.AttnflowError`` and ``except ValueError`` work.
"""

from __future__ import annotations

__all__ = [
    "AttnflowError",
    "CaptureError",
    "CertificateError",
    "FileFormatError",
    "InvalidArgumentError",
    "InvalidCapacityError",
    "MissingDependencyError",
    "UnboundedFlowError",
]


class AttnflowError(Exception):
    """Base of every error the library raises on purpose."""


class InvalidArgumentError(AttnflowError, ValueError):
    """An argument is out of range, of the wrong kind, or contradicts another."""


class InvalidCapacityError(AttnflowError, ValueError):
    """Capacities are NaN, negative, complex, empty, of the wrong shape, or too large to be exact."""


class UnboundedFlowError(AttnflowError, ValueError):
    """A source reaches a sink through unbounded edges alone, so no maximum flow exists."""


class CertificateError(AttnflowError, RuntimeError):
    """A solved flow failed its certificate. This is a bug in attnflow: please report the instance."""


class CaptureError(AttnflowError, RuntimeError):
    """The attention of a model could not be captured completely and exactly."""


class MissingDependencyError(AttnflowError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class FileFormatError(AttnflowError, ValueError):
    """A saved result, or a packaged model, is damaged, or of a version this release does not read."""
