"""Many pictures: where they lie, what models say of each, and the rows that are kept."""
