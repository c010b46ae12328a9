"""What a pipeline is loaded with: offloading, LoRA, quantisation, schedulers, step caches, weights to measure with."""
