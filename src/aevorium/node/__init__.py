"""A node: it holds records, answers the phases of a study, and lets nothing out but through the gate."""
