"""What the State API raises."""

from __future__ import annotations


class RayStateApiException(Exception):
    """The question could not be answered, or not completely."""


class ServerUnavailable(RayStateApiException):
    """There is no cluster to ask."""
