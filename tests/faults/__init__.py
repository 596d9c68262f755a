"""FAULTS: a real cluster on its bad days, judged from outside: `python -m tests.faults`."""
