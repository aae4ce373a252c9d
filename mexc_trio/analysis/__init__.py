"""What is stored, added up by queries: for those who check it and those who draw it."""
