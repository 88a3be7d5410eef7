"""The REST API (FastAPI). It sees what has passed a gate and nothing else."""
