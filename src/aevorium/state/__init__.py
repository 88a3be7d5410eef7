"""The server's state: the keys of people. One SQL database, SQLite or PostgreSQL."""
