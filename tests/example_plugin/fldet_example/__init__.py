"""An example of a plug-in of fldet: a loss, a miner and an analysis."""
