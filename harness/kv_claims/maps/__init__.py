"""Maps: where on a model an outcome is moved, cell by cell; exploratory, and never a verdict."""
