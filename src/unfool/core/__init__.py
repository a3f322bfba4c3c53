"""What all rooms build on: threat models and their geometry, errors, random streams, names and files.

Nothing here imports another room of the house.
"""
