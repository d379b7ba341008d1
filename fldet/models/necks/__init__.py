"""Necks that MMDetection does not have."""

from fldet.models.necks.deconvolution_neck import DeconvolutionNeck
from fldet.models.necks.passthrough import PassthroughNeck
from fldet.models.necks.residual_ssd_neck import ResidualSSDNeck

__all__ = ["DeconvolutionNeck", "PassthroughNeck", "ResidualSSDNeck"]
