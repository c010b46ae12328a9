"""What selectors share: pooling, exact choice of blocks, softmax mass, head types, clustering."""
