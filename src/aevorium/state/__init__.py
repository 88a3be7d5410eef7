"""The server's state: jobs, studies, the keys of people. One SQL database, SQLite or PostgreSQL."""
