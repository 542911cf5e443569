"""What the files in `scripts/` run: serving, assets, training, simulation, benchmarks; a package or module each."""
