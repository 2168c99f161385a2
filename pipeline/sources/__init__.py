"""What images are read from: objects, and the members of containers (tars, Parquet files) among them."""
