"""Files of molecules in and out: tables, lists, SDF, Parquet, and their rows parsed for scoring."""
