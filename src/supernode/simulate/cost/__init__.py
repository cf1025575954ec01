"""Cost of an op on a chip, one file a mechanism.

Every formula is written over numpy arrays that broadcast, so that `bench/fit.py` evaluates on
whole tables the very code that prices one op here. None of them can go below the chip's bounds:
what they add to the roofline (start, tiles, waves, depth, traffic) only makes it longer.
"""
