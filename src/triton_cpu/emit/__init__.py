"""LLVM IR from a schedule: one module a family of ops."""
