"""The wire contract between server and nodes, and the transports that carry it. Reads no record."""
