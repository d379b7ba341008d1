"""Necks that MMDetection does not have."""

from fldet.models.necks.deconvolution_neck import DeconvolutionNeck
from fldet.models.necks.passthrough import PassthroughNeck
from fldet.models.necks.residual_ssd_neck import ResidualSSDNeck
from fldet.models.necks.top_down_modulation import TopDownModulation

__all__ = ["DeconvolutionNeck", "PassthroughNeck", "ResidualSSDNeck", "TopDownModulation"]
