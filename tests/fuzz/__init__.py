"""Bytes that nobody foresaw -> every reader of foreign bytes: none may fail, run away or give what nothing can hold.

    samples -> mutated (mutating.py) -> a target (table.py) -> nothing, or a find

The targets are one table. Hypothesis feeds them in the unit tests for seconds (tests/unit/test_fuzz.py), and
`make fuzz` for as long as one likes, led by coverage (guided.py). Finds become samples in tests/samples/fuzz.
"""
