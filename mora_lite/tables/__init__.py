"""Files of molecules in and out: tables, lists, SDF, Parquet, prepared libraries."""
