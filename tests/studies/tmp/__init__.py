"""Tests of the parts of TMP."""
