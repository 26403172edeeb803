"""Download Checkpoint Archive: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import example_path

import bios

# Create service client
sc = bios.ServiceClient()

# Create REST client for downloads
rc = sc.create_rest_client()

# Download checkpoint archive
checkpoint_path = example_path("bios://<unique_id>/sampler_weights/final")
future = rc.download_checkpoint_archive_from_bios_path(checkpoint_path)
archive_data = future.result()

# Save to local file
with open("model-checkpoint.tar.gz", "wb") as f:
    f.write(archive_data)

print("✓ Checkpoint downloaded: model-checkpoint.tar.gz")
