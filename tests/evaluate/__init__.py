"""Tests of shared.evaluate; a package, because shared.nn has modules of the same names."""
