"""The native part of the shared-memory fabric, compiled for this host at first use."""

import ctypes
from ctypes import c_char_p, c_int, c_int32, c_int64, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import torch

from supernode.kernels import compiled
from supernode.run.fabric.interface import Reduction

# Index = the number of it in fabric.c and reduce.h.
KINDS = (
    "barrier",
    "all_reduce",
    "all_reduce in place",
    "reduce_scatter",
    "all_gather",
    "all_to_all",
    "all_to_all_rows",
)
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.bool,
)
OPS: tuple[Reduction, ...] = ("sum", "max", "min")
DONE, ABORTED, LATE, READING, MISMATCH = range(5)

_SOURCE = Path(__file__).with_name("native") / "fabric.c"

# name -> (result, arguments)
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sn_control_bytes": (c_int64, (c_int64,)),
    "sn_fabric_bytes": (c_int64, (c_int64,)),
    "sn_slots": (c_int64, ()),
    "sn_attach": (
        None,
        (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int, c_uint64),
    ),
    "sn_abort": (None, (c_void_p, c_int32, c_char_p)),
    "sn_abort_reason": (c_char_p, (c_void_p, c_void_p)),
    "sn_signal": (None, (c_void_p, c_int64, c_int64, c_uint64)),
    "sn_wait": (c_int, (c_void_p, c_int64, c_uint64)),
    "sn_slot_value": (c_uint64, (c_void_p, c_int64)),
    "sn_sleeps": (c_int, (c_void_p, c_int64)),
    "sn_missing": (None, (c_void_p, c_int, c_void_p)),
    "sn_mismatch": (c_int64, (c_void_p, c_void_p)),
    "sn_prefer_huge_pages": (None, (c_void_p, c_int64)),
    "sn_barrier": (c_int, (c_void_p, c_void_p, c_int64)),
    "sn_collective": (
        c_int,
        (c_void_p, c_int, c_int, c_int, c_void_p, c_int64, c_char_p, c_char_p, c_int64, c_int64),
    ),
    "sn_exchange": (
        c_int,
        (c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "sn_all_reduce_in_place": (
        c_int,
        (c_void_p, c_int, c_int, c_void_p, c_int64, c_int64, c_int64),
    ),
}


@cache
def native_library() -> ctypes.CDLL:
    """The compiled library with typed functions; raises `SupernodeError` without a C compiler."""
    library = ctypes.CDLL(str(compiled(_SOURCE, "the shared-memory fabric")))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
