"""Memory: SQLite. One file per dataset, one registry. Only this package imports sqlite3."""
