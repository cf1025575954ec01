"""Passes over tile IR: what is stored where, and which ops share one loop nest."""
