"""Whose turn the interpreter is, while the notebook's own thread computes.

CPython lets a thread that computes go on for 5 ms after another has asked for the interpreter. nbray-io asks each time that a frame
has come, and lets go of it for a moment with each that it sends: then tasks in the background advance by one frame in 5 ms. With a
shorter turn they are hardly slower than beside an idle notebook, and what computes hands over no more often than there is mail.
"""

from __future__ import annotations

import sys

#: As long as a frame of results takes to come together (owner/outgoing.py).
TURN_S = 0.001
#: What Python begins with. Whoever has chosen another knows why.
USUAL_S = 0.005


def shorten() -> None:
    """While this process drives a cluster."""
    if sys.getswitchinterval() == USUAL_S:
        sys.setswitchinterval(TURN_S)


def restore() -> None:
    if sys.getswitchinterval() == TURN_S:
        sys.setswitchinterval(USUAL_S)
