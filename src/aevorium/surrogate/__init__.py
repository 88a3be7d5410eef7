"""A density fitted to noisy tables, from which rows can be drawn without end. Post-processing: free of charge."""
