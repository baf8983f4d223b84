"""Maps as pictures for people."""
