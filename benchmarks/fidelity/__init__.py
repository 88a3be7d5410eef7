"""How close synthetic tables come to held-out rows: Aevorium and its peers on the same rows."""
