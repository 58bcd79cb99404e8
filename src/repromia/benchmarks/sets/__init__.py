"""One short file a benchmark, or a family that differs in a value: each names its values BENCHMARKS."""
