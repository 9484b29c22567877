"""Tests of shared.nn; a package, because shared.evaluate has modules of the same names."""
