"""libnftables, by ctypes: a transaction of nft commands takes a fifth of a millisecond, where starting the
nft program takes a hundred times as long.

What belongs here: running commands in the calling thread's namespace. What does not: their text (render.py).
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache

from swarmpy.ports import FabricError

SONAME = "libnftables.so.1"
_SHOWN = 300
_turn = threading.Lock()
"""The library keeps tables of its own that it does not lock."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(SONAME)
    except OSError:
        raise FabricError(
            f"{SONAME} was not found, which balances connections between a service's tasks; "
            "install it: apt-get install libnftables1 (Debian, Ubuntu), dnf install nftables-libs (Fedora)"
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for call in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
        call.argtypes = [ctypes.c_void_p]
    for call in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
        call.argtypes = [ctypes.c_void_p]
        call.restype = ctypes.c_char_p
    return library


def run(commands: str) -> str:
    """Carry out the commands as one transaction (all or none), in the namespace in which the thread is; what
    they print. Raises FabricError.

    A context is made each time: one that is kept would keep a namespace alive.
    """
    library = _library()
    with _turn:
        context = library.nft_ctx_new(0)
        if not context:
            raise FabricError("nftables cannot be reached; this needs root and a kernel with nf_tables")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            status = library.nft_run_cmd_from_buffer(context, commands.encode())
            printed = library.nft_ctx_get_output_buffer(context) or b""
            complaint = library.nft_ctx_get_error_buffer(context) or b""
        finally:
            library.nft_ctx_free(context)
    if status:
        raise FabricError(f"nftables refused: {complaint.decode(errors='replace').strip()[:_SHOWN]}")
    return str(printed.decode(errors="replace"))
