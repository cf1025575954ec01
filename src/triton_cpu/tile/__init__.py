"""The tile IR: what a kernel is between Triton's TTIR and LLVM IR.

`types` and `ops` are its data, `mlir` reads TTIR's text, `translate` turns that into tile ops and
`printer` shows them (`kernel.asm["tile"]`).
"""
