"""What a node allows and what it has done: the steward's policy, the gate that enforces it, and the audit chain."""
