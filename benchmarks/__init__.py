"""How fast it is, measured against the alternatives in the same run. `make bench`, or `python -m benchmarks --help`."""
