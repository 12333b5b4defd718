"""A page on this computer and an HTTP interface to a pack: one molecule with its reasons, or a table of them."""
