"""Layers that compute what torch's own do, faster on a CPU, and the memory layout they need."""
