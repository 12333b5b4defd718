"""Molecules: from text to molecule, graph and fingerprint; drawings."""
