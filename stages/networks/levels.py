"""The names of the hierarchical maps, as teachers and students answer with them."""

CONSPICUITY = ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5")
"""Shallow to deep: of HD2S's four decoders; of TinyHD's D1, at H/2, H/4, H/8 and H/16."""
FINAL = "final"
"""The saliency map that they are fused to."""
LEVELS = (*CONSPICUITY, FINAL)
"""All maps that a hierarchical teacher gives of a frame."""
