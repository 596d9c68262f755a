"""THE SIMULATOR: real shells over a simulated clock, network, disk and engine."""
