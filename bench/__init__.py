"""The speed measurements: `python -m bench` runs them and writes a dated report for each theme."""
