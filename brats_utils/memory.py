"""Keep memory that was freed, instead of giving it back to the system and asking for it again at the next step."""

import ctypes
import platform

SETTINGS = {
    -3: 2**30,  # M_MMAP_THRESHOLD: blocks below 1 GB come from the heap, and stay there
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: the end of the heap is not given back
    -2: 2**26,  # M_TOP_PAD: the heap grows by 64 MB at a time
}
"""Of glibc's `mallopt`. Source: malloc.h, and its man page."""


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed; call it once in each process that computes, before the first step.

    Large activations are freed and allocated again at every step. By default glibc returns each to the system, which then
    hands it out page by page, filled with zeros: a fifth of a training step (docs/performance.md).

    Gives whether it was done. Elsewhere than on Linux with glibc, nothing happens.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in SETTINGS.items())
