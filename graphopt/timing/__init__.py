"""Times of models and kernels, every backend in a process of its own."""
