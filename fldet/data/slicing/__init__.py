"""Parts of large pictures: slices that are looked at, tiles that are trained on."""
