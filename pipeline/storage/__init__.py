"""Object storage behind one interface: local folders, S3, Google Cloud Storage, Azure, and a cache of files."""
