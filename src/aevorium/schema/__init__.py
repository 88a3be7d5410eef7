"""The public description of a table: columns, bounds, categories, rules. Nothing here reads a record."""
