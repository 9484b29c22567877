"""Tests of the parts of scPretrain."""
