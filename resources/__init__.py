"""The doors outside: source, store, ingest log, model versions, warehouse. Thin on purpose."""
