"""pysyncobj, imported so that it leaves the process as it was.

On import it replaces `socket.inet_ntop` for everybody, by a function that only works on Windows. Whoever in
this package needs the library comes after this module (the package's first import).
"""

from __future__ import annotations

import socket

_inet_ntop = socket.inet_ntop

import pysyncobj  # noqa: E402  between taking the function and putting it back
import pysyncobj.pickle  # noqa: E402  likewise

socket.inet_ntop = _inet_ntop

__all__ = ["pysyncobj"]
