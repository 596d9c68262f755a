"""Tests of a node's life."""
