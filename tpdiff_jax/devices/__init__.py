"""What a run runs on: the mesh, where parameters lie, processes, memory, signals."""
