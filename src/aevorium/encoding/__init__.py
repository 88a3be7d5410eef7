"""From noisy one-way histograms to a reversible encoding of a table. No torch, no noise, no federation."""
