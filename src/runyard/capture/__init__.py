"""Looking at a run from inside its processes and from beside them, without any change to its code."""
