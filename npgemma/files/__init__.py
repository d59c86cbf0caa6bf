"""What people hand in as files: pictures, JSON, safetensors, and what a file really is."""
