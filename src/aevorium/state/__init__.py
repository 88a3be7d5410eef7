"""The server's state: jobs, the keys of people, what was asked before. One SQL database, SQLite or PostgreSQL."""
