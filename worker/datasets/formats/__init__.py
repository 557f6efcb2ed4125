"""The readers: one for each format, from bytes to a draft of the canonical form."""
