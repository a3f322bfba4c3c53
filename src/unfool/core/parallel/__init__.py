"""Work in several processes of this machine, their clocks and their memory."""
