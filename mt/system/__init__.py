"""What `mt` needs of the machine: folders, files, devices, threads, downloads; one rule for each, used everywhere."""
