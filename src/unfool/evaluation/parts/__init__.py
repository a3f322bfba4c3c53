"""An evaluation in parts: jobs that classify or attack some of the images, whose files are joined to what one process
gives, to the bit."""
