"""HANDS: one module or package per outside thing. Each implements a port of ports.py."""
