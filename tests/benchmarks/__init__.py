"""A package, so that a benchmark may carry the name of the test file of the same module."""
