"""What the code of an ML job can import without installing anything."""
