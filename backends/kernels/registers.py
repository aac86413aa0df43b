"""What kernels need to know of the vector registers of a target."""

REGISTERS = {16: 32, 8: 16, 4: 32}
"""Vector registers by number of float32 lanes: AVX-512, AVX, NEON."""
