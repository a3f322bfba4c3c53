"""Model cards: made of what commands measured, and checked by measuring again."""
