"""The report: one offline HTML page and its twin in JSON."""
