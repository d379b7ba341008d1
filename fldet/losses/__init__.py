"""The losses: formulas, fused kernels, modules and what they are divided by."""
