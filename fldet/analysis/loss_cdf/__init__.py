"""Figure 4: which anchors the loss comes from."""
