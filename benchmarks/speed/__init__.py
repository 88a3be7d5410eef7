"""What privacy costs in time and memory, and how long a run takes beside a peer's."""
