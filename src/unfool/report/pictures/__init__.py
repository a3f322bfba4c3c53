"""Images on a page: galleries of attacks, and strips of what tasks and reversals make of an image."""
