"""fldet paper."""
