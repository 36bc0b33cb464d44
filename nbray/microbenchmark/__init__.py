"""Ray's own microbenchmark, row by row, against any module with Ray's API; `nbray microbenchmark` runs it on this machine.

    row.py      what a row is          objects.py calls.py actors.py   the rows
    alone.py    measures nbray by itself

The project's own table measures the same rows beside Ray and others, in turns (`benchmarks/` of the source).
"""
