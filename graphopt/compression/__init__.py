"""What gives up accuracy for size or speed: pruning, clustering, sparsity, int8, what wins it back, and the search over them."""
