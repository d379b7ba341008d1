"""Building, training and testing on MMEngine's Runner. Plain functions that return results.

Importing the engine imports MMDetection, without the lines that it prints about optional packages.
"""

from fldet._compat import silence_imports

with silence_imports():
    import mmdet.datasets
    import mmdet.models  # noqa: F401
