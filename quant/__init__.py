"""Four-bit formats: quantise, dequantise, multiply, read and write checkpoints."""
