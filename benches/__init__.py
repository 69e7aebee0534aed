"""Targets of the issues: ours and a named yardstick, measured alternately in one run, compared as a ratio."""
