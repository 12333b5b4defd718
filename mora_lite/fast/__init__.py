"""The same scorer, and the products of a decoder that answers, with fewer operations; equal to the plain ones."""
