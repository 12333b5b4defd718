"""The frozen language model: weights, decoder, compiled prefixes, generation."""
