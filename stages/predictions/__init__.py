"""Whose maps are scored: networks, baselines, stores, and maps that others have made."""
