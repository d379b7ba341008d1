"""Faster steps and passes: leaner training, bfloat16, folded norms, fused maps, CUDA graphs."""
