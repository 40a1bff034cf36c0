"""What the benchmarks of `work_*.py` share: a load, cores that stand for a machine, a companion."""
