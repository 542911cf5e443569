"""The live scheduler: asyncio around the core, gRPC to the engine, threads only where Triton's API blocks."""
