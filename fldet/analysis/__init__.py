"""One module for each figure or report: compute a result, plot a result."""
