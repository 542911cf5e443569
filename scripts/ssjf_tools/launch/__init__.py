"""Starting a filled production repository on as many GPUs as its engine was built for: behind `scripts/launch`."""
