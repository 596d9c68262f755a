"""Clusters on one machine: one network and mount namespace and one Docker Engine per node."""
