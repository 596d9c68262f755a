"""Admission: commands validated on the present world, one concern a file. Pure."""
