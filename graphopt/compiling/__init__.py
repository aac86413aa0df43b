"""From a model to what is written: passes for a target, kernels, and the verdict."""
