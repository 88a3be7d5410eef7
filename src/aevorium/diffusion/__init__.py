"""The diffusion model of an encoded table: layout, noise, denoiser, samplers, checkpoints. Knows no privacy."""
