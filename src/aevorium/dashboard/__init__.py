"""The dashboard: pages for people, over the API alone. It computes nothing and reads no file of a workspace."""

__all__: list[str] = []
