"""Starting, watching and stopping Triton with this repository: the code behind `scripts/serve`."""
