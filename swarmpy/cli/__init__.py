"""The command line: a file per noun. Imports model and the standard library only."""
