"""Benchmarks of issue-level targets: ours and a named peer, measured alternately in one run, compared as a ratio."""
