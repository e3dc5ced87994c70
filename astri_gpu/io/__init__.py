"""Readers and writers, one file per outside format."""
