"""What a system is made of, as a digest: values, code, and which of them a pass through the system writes."""
