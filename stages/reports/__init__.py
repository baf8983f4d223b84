"""Pages that show a run to people: what was trained on what, how it went, how good it is, what it looks like."""
