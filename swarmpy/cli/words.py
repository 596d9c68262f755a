"""Docker's words in the daemon's answers, as those who typed `swarmpy` know them.

The API speaks like Docker's, because its clients compare texts; a hint such as `docker swarm init` is of
no use to a user who never typed `docker`. What belongs here: the one translation, used where answers are
printed.
What does not: anything else about texts.
"""

from __future__ import annotations

import re

_TOP = "init|join|join-token|leave"
"""Verbs of `docker swarm` that are commands of their own here."""
_NOUNS = "swarm|node|service|network|stack|secret|config|info"
_SWARM = re.compile(rf"\bdocker swarm (?=(?:{_TOP})\b)")
_NOUN = re.compile(rf"\bdocker (?=(?:{_NOUNS})\b)")


def own(text: str) -> str:
    """The text with Docker's commands as ours. What is about the Engine (`docker run`) stays as it is."""
    return _NOUN.sub("swarmpy ", _SWARM.sub("swarmpy ", text))
