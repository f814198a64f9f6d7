"""Ours against a plain reference: what `tools/benchmark.py` measures, how, and the table it writes.

`measure` knows how one thing is measured, `workers` what is measured of each side, `peer` gives each side a
process of its own, and `table` holds the rows.
"""
