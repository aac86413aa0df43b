"""Errors that loading and running a compiled model can raise.

GraphoptError
├── ArtifactError   the artifact is damaged, foreign, too new, or made for another CPU
└── InputError      a feed has the wrong name, dtype or shape
"""


class GraphoptError(Exception):
    """Base of every error that a user can cause; `str()` is the whole message."""

    exit_code = 2


class ArtifactError(GraphoptError):
    """The artifact cannot be loaded here."""


class InputError(GraphoptError):
    """The feeds do not fit the model."""
