"""The replicated log: pysyncobj as a Raft core that we drive (see node.py)."""
