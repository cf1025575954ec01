"""The engine: a node, its workers, and the steps they run."""
