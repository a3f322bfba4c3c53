"""Readers: what lies in folders, parquet files, archives and on the Hugging Face hub, as rows for the store."""
