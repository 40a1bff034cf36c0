"""The mathematics of covert capacity: codelengths, bounds from a sample, the alarm. No I/O."""
