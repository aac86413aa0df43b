"""NVIDIA GPUs: the same lazy tensors and operators, kernels of blocks of threads, cubins, and a driver made of launches."""
