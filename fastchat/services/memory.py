"""Memory that a flood has used goes back to the system. It knows nothing of what the memory was for."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what is free to the system. glibc keeps what lies below anything still in use, however much it is: after
    2,000 TLS connections 45 MiB, which this gives back in about 15 ms. Elsewhere nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
