"""LAB: whole clusters on one machine, for tests, benchmarks and people.

What belongs here: making nodes out of namespaces, their engines, their network and their faults. What does
not: anything that runs in a real cluster.
"""
