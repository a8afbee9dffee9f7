"""What starts work: sensors notice, group and ask for runs by job name. They never open DuckDB."""
