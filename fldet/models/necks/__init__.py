"""What stands between backbone and head, where MMDetection has none."""

from fldet.models.necks.deconvolution_neck import DeconvolutionNeck as DeconvolutionNeck
from fldet.models.necks.residual_ssd_neck import ResidualSSDNeck as ResidualSSDNeck
