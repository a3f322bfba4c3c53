"""Work in several processes of this machine."""
