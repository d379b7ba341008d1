"""Operations of a forward pass, by part."""
