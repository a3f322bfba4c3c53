"""What audits, ladders and pretext tasks show: estimates with their intervals and words, for claims, and charts."""
